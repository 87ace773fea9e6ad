"""A tiny model of every family beyond LLaVA: {model type: call with its folder and `words`}."""

from __future__ import annotations

from pathlib import Path

from transformers import AutoTokenizer

from builders import mini_gemini_data
from builders.anyres_models import save_tiny_llava_next, save_tiny_onevision
from builders.internvl_models import save_tiny_internvl
from builders.qwen_models import save_tiny_qwen
from builders.video_llava_models import save_tiny_video_llava


def save_tiny_mini_gemini(folder: Path, words: Path) -> None:
    """A published checkpoint beside its towers, with the tokenizer of the folder `words`."""
    tensors = mini_gemini_data.published_tensors()
    towers = mini_gemini_data.save_towers(folder.parent, tensors)
    mini_gemini_data.save_published(folder, tensors, **towers)
    AutoTokenizer.from_pretrained(words).save_pretrained(folder)


FAMILIES = {
    "llava_next": save_tiny_llava_next,
    "llava_onevision": save_tiny_onevision,
    "internvl": save_tiny_internvl,
    "mini_gemini": save_tiny_mini_gemini,
    "qwen2_vl": lambda folder, _: save_tiny_qwen(folder, "qwen2_vl"),
    "qwen2_5_vl": lambda folder, _: save_tiny_qwen(folder, "qwen2_5_vl"),
    "qwen3_vl": lambda folder, _: save_tiny_qwen(folder, "qwen3_vl"),
    "video_llava": save_tiny_video_llava,
}
