"""The configuration of a Mini-Gemini: in transformers' form, and that of published checkpoints.

The `config.json` of a published checkpoint (YanweiLi/MGM-7B and its like) is a LLaMA's,
`model_type` "mgm" or "mini_gemini". It has fields for the rest of the model: `mm_vision_tower` and
`mm_vision_tower_aux` (folders that the authors trained from), `image_size_aux`, `image_grid`,
`mm_projector_type` and so on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, ClassVar

from transformers import AutoConfig, ConvNextConfig, LlamaConfig, LlavaConfig

from prunesid.core.registry import unknown

# OpenCLIP's convnext_large_d_320.
CONVNEXT_LARGE = {"hidden_sizes": [192, 384, 768, 1536], "depths": [3, 3, 27, 3]}

ASPECT_RATIOS = ("pad", "square")

# Field, what it must be, what it is where it is left out.
REQUIRED: tuple[tuple[str, object, object], ...] = (
    ("image_grid", 1, 1),
    ("image_global", False, False),
    ("mm_projector_type", "mlp2x_gelu", "linear"),
    ("mm_vision_select_feature", "patch", "patch"),
    ("mm_use_im_start_end", False, False),
)
# Not fields of transformers' LlamaConfig, but understood by it.
_LEGACY = ("rope_theta", "rope_scaling", "torch_dtype")


class MiniGeminiConfig(LlavaConfig):
    """A LLaVA's configuration (CLIP ViT-L/14-336 by default) and that of the second tower.

    aux_config          the ConvNeXt trunk; ConvNeXt-L by default
    image_size_aux      pixels per side of the high-resolution image; the low-resolution one is it,
                        shrunk to the CLIP tower's size
    image_aspect_ratio  "pad": images become square by padding; "square": by cropping
    image_token_id      what stands for a visual token in a prompt: the first id after the
                        vocabulary, or a later one. Published checkpoints have no such token, and
                        the embeddings, which are never asked for it, get no row for it.

    The configurations of published checkpoints are read as well (`translate`).
    """

    model_type = "mini_gemini"
    sub_configs: ClassVar[dict[str, Any]] = {
        **LlavaConfig.sub_configs,
        "aux_config": ConvNextConfig,
    }

    vision_config: Any = None
    text_config: Any = None
    aux_config: Any = None
    image_size_aux: int = 768
    image_aspect_ratio: str = "pad"

    def __post_init__(self, **kwargs: Any) -> None:
        if not isinstance(self.aux_config, ConvNextConfig):
            self.aux_config = ConvNextConfig(**(self.aux_config or CONVNEXT_LARGE))
        super().__post_init__(**kwargs)
        self.image_seq_length = self.grid**2
        self._refuse()

    @property
    def grid(self) -> int:
        """Patches per side of the low-resolution image."""
        return self.vision_config.image_size // self.vision_config.patch_size

    def _refuse(self) -> None:
        problems = []
        if self.image_aspect_ratio not in ASPECT_RATIOS:
            problems.append(unknown("image_aspect_ratio", self.image_aspect_ratio, ASPECT_RATIOS))
        if self.image_token_id < self.text_config.vocab_size:
            problems.append(
                f"image_token_id {self.image_token_id} is in the vocabulary, which has "
                f"{self.text_config.vocab_size} tokens"
            )
        if self.vision_feature_select_strategy != "default":
            problems.append("vision_feature_select_strategy must be 'default' (no CLS token)")
        if not isinstance(self.vision_feature_layer, int):
            problems.append("vision_feature_layer must be one layer")
        if problems:
            raise ValueError("Not a Mini-Gemini that can be run: " + "; ".join(problems))

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        if not is_published(config_dict):
            return super().from_dict(config_dict, **kwargs)
        return MiniGeminiConfig.from_dict(translate(config_dict), **kwargs)


class PublishedConfig(MiniGeminiConfig):
    """The type "mgm" of published checkpoints; reading one gives a `MiniGeminiConfig`."""

    model_type = "mgm"


def is_published(raw: Mapping[str, Any]) -> bool:
    """Whether a `config.json` is laid out as in the published checkpoints."""
    return "mm_vision_tower" in raw


def translate(raw: Mapping[str, Any]) -> dict[str, Any]:
    """A published `config.json` -> the fields of `MiniGeminiConfig`, with the default towers.

    ValueError that names everything this model cannot be.
    """
    problems = [
        f"{name} is {raw.get(name, absent)!r}, and only {must!r} is supported"
        for name, must, absent in REQUIRED
        if raw.get(name, absent) != must
    ]
    for name in ("mm_vision_tower_aux", "image_size_aux"):
        if raw.get(name) is None:
            problems.append(f"{name} is missing")
    if "xxlarge" in str(raw.get("mm_vision_tower_aux")):
        problems.append("the ConvNeXt-XXL trunk normalizes differently and is not supported")
    others = [name for name in raw.get("architectures") or () if "Llama" not in name]
    if others:
        problems.append(f"the language model must be a LLaMA, not that of {', '.join(others)}")
    if problems:
        raise ValueError("This published Mini-Gemini cannot be run: " + "; ".join(problems))
    known = {field.name for field in fields(LlamaConfig)} | set(_LEGACY)
    text = {name: value for name, value in raw.items() if name in known}
    text.pop("architectures", None)
    return {
        "text_config": {**text, "model_type": "llama"},
        "image_token_index": raw.get("vocab_size", LlamaConfig.vocab_size),
        "vision_feature_layer": raw.get("mm_vision_select_layer", -2),
        "image_size_aux": raw["image_size_aux"],
        "image_aspect_ratio": raw.get("image_aspect_ratio") or "square",
        "dtype": raw.get("torch_dtype", raw.get("dtype")),
    }


AutoConfig.register("mini_gemini", MiniGeminiConfig, exist_ok=True)
AutoConfig.register("mgm", PublishedConfig, exist_ok=True)
