"""LLaVA-1.5 and Pocket-LLaVA."""

from prunesid.families.declared import PLANNED, Family, declare
from prunesid.families.declared.geometry import vit
from prunesid.families.inputs.conversations import VICUNA_V1

declare(
    Family(
        "llava",
        lambda config, frames: vit(config),
        padding="to a square, in the mean color",
        prompt=VICUNA_V1,
        encoder=PLANNED,
    )
)
