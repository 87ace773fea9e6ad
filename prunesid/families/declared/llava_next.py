"""LLaVA-NeXT."""

from __future__ import annotations

from prunesid.core.crops import CHOICES
from prunesid.families.declared import PLANNED, Family, declare
from prunesid.families.declared.geometry import Geometry, Stated, vit
from prunesid.families.inputs.conversations import CHATML_DIRECT, VICUNA_V1


def read(config: Stated, frames: int | None) -> Geometry:
    """The tiles are those of the image's best pinpoint."""
    side = config.part("vision_config").image_size
    tiles = max(height * width for height, width in config.image_grid_pinpoints) // side**2
    return vit(config, tiles=tiles)


declare(
    Family(
        "llava_next",
        read,
        padding="base crop stretched; sub-crops padded in black",
        prompt=f"{VICUNA_V1}, {CHATML_DIRECT} or mistral_instruct, by the language model",
        choices=CHOICES,
        encoder=PLANNED,
    )
)
