"""Mini-Gemini."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from prunesid.families.declared import PLANNED, Family, declare
from prunesid.families.declared.geometry import Geometry, Stated, vit
from prunesid.families.inputs.conversations import VICUNA_V1


def read(config: Stated, frames: int | None) -> Geometry:
    """A CLIP tower, a ConvNeXt on a larger image, patch info mining between them.

    Published checkpoints state their language model at the top level.
    """
    found = vit(config, flat=True, layer=config.stated("mm_vision_select_layer"))
    trunk, patches, width = config.part("aux_config"), found.crop_tokens, found.tower.width
    # A cell of the first stage is 4 x 4 pixels.
    side = config.image_size_aux // 4
    wide = sum(trunk.hidden_sizes)
    # Queries, keys and values have a layer each; a cell is scored and mixed.
    mining = patches * width * width + 2 * side * side * (wide + 1) * width
    macs = convnext_macs(trunk.depths, trunk.hidden_sizes, side) + mining
    return replace(found, extra_macs=found.extra_macs + macs)


def convnext_macs(depths: Sequence[int], widths: Sequence[int], side: int) -> int:
    """Multiply-adds of a trunk whose first stage has side x side cells."""
    macs = side * side * 3 * 16 * widths[0]
    for stage, (depth, width) in enumerate(zip(depths, widths, strict=True)):
        cells = (side >> stage) ** 2
        if stage:
            macs += cells * 4 * widths[stage - 1] * width
        # A depthwise convolution of 7 x 7 and two layers of four times the width.
        macs += depth * cells * (49 * width + 8 * width * width)
    return macs


def configuration(config: Mapping[str, Any]) -> Any:
    """Published or our own."""
    from prunesid.families.mini_gemini.configuration import MiniGeminiConfig

    return MiniGeminiConfig.from_dict(dict(config))


def build(config: Any) -> Any:
    from prunesid.families.mini_gemini.modeling import MiniGeminiForConditionalGeneration

    return MiniGeminiForConditionalGeneration(config)


declare(
    Family(
        "mini_gemini",
        read,
        padding="to a square, in the mean color",
        prompt=VICUNA_V1,
        encoder=PLANNED,
        aliases=("mgm",),
        configuration=configuration,
        build=build,
        processor=False,
    )
)
