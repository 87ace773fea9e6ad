"""The `config.json` of published Mini-Gemini checkpoints (YanweiLi/MGM-7B and its like).

It is a LLaMA's configuration, `model_type` "mgm" or "mini_gemini", with fields for the rest of the
model among it: `mm_vision_tower` and `mm_vision_tower_aux` (folders that the authors trained from),
`image_size_aux`, `image_grid`, `mm_projector_type` and so on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from transformers import LlamaConfig

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
