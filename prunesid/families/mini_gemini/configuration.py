"""The configuration of a Mini-Gemini, in transformers' form."""

from __future__ import annotations

from typing import Any, ClassVar

from transformers import AutoConfig, ConvNextConfig, LlavaConfig

from prunesid.core.registry import unknown
from prunesid.families.mini_gemini.published_config import ASPECT_RATIOS, is_published, translate

# OpenCLIP's convnext_large_d_320.
CONVNEXT_LARGE = {"hidden_sizes": [192, 384, 768, 1536], "depths": [3, 3, 27, 3]}


class MiniGeminiConfig(LlavaConfig):
    """A LLaVA's configuration (CLIP ViT-L/14-336 by default) and that of the second tower.

    aux_config          the ConvNeXt trunk; ConvNeXt-L by default
    image_size_aux      pixels per side of the high-resolution image; the low-resolution one is it,
                        shrunk to the CLIP tower's size
    image_aspect_ratio  "pad": images become square by padding; "square": by cropping
    image_token_id      what stands for a visual token in a prompt: the first id after the
                        vocabulary, or a later one. Published checkpoints have no such token, and
                        the embeddings, which are never asked for it, get no row for it.

    The configurations of published checkpoints are read as well, see `published`.
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


AutoConfig.register("mini_gemini", MiniGeminiConfig, exist_ok=True)
AutoConfig.register("mgm", PublishedConfig, exist_ok=True)
