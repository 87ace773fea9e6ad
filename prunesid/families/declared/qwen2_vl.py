"""Qwen2-VL, and the sizes that its successors share."""

from __future__ import annotations

import math
from collections.abc import Callable

from prunesid.core.costs import Transformer
from prunesid.families.declared import ANY_SIZE, Family, declare
from prunesid.families.declared.geometry import USUAL_PIXELS, Geometry, Stated


def read(config: Stated, frames: int | None) -> Geometry:
    """The tower's FFN is `mlp_ratio` times as wide as its tokens."""
    vision = config.part("vision_config")
    width = vision.embed_dim
    ffn = int(width * vision.mlp_ratio)
    return merged(config, frames, tower_of(vision, width, ffn, 2), vision.hidden_size)


def tower_of(vision: Stated, width: int, ffn: int, ffn_matrices: int) -> Transformer:
    """The tower; blocks that attend within windows are counted as if they did not."""
    heads = vision.num_heads
    return Transformer(vision.depth, width, ffn, heads, heads, width // heads, ffn_matrices)


def merged(
    config: Stated, frames: int | None, tower: Transformer, out: int, further: int = 0
) -> Geometry:
    """Patches of an image of any size, merged two by two into tokens of width `out`.

    Each of `further` mergers makes as many channels again, which tokens carry.
    Frames are taken to have the usual size of images; `temporal_patch_size` of them are one crop.
    Before transformers 5 the language model's fields stood at the top level.
    """
    vision, text = config.part("vision_config"), config.part("text_config", flat=True)
    merge = vision.spatial_merge_size
    rows, columns = (round(edge / (vision.patch_size * merge)) for edge in USUAL_PIXELS)
    tokens, joined = rows * columns, tower.width * merge**2
    crops = math.ceil((frames or 1) / vision.temporal_patch_size)
    return Geometry(
        tower=tower,
        tower_tokens=tokens * merge**2,
        crop_tokens=tokens,
        width=out * (1 + further),
        crops=crops,
        usual_crops=crops,
        fixed=False,
        extra_macs=tokens * (1 + further) * (joined * joined + joined * out),
        decoder=Transformer.decoder(text),
        vocabulary=text.vocab_size,
        axes=3,
    )


def declare_qwen(name: str, read: Callable[[Stated, int | None], Geometry]) -> None:
    """Make known a family of this kind."""
    prompt = "the checkpoint's chat template"
    padding = "none, the aspect ratio stays"
    declare(Family(name, read, padding=padding, prompt=prompt, clips=True, encoder=ANY_SIZE))


declare_qwen("qwen2_vl", read)
