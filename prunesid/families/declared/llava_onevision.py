"""LLaVA-OneVision."""

from __future__ import annotations

from prunesid.core.crops import CHOICES
from prunesid.families.declared import Family, declare
from prunesid.families.declared.geometry import Geometry, Stated, vit
from prunesid.families.inputs.conversations import QWEN_1_5


def read(config: Stated, frames: int | None) -> Geometry:
    """Beyond the n tiles of `anyres_max_n` an image's tokens are scaled down to as many.

    A frame has no tiles, and its tokens are pooled two by two.
    """
    if frames is not None:
        return vit(config, frames=frames, pooling=2, projects_first=True)
    most = str(config.vision_aspect_ratio).rsplit("_", 1)[-1]
    return vit(config, tiles=int(most), projects_first=True)


declare(
    Family(
        "llava_onevision",
        read,
        padding="base crop stretched; map padded in black; several images in a prompt to a square",
        prompt=QWEN_1_5,
        clips=True,
        choices={"newline": CHOICES["newline"]},
    )
)
