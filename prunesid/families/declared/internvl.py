"""InternVL3."""

from __future__ import annotations

from prunesid.core.costs import Transformer
from prunesid.families.declared import ANY_SIZE, Family, declare
from prunesid.families.declared.geometry import Geometry, Stated, patches_along

# The image processor's default, which published checkpoints keep; a thumbnail comes on top. An
# image of 640 x 480 pixels has as many: 4 x 3 tiles have its aspect ratio.
MOST_TILES = 12


def read(config: Stated, frames: int | None) -> Geometry:
    """Tokens are pruned after pixel shuffle, four patches wide; a frame is one tile."""
    vision, text = config.part("vision_config"), config.part("text_config")
    tower, decoder = Transformer.encoder(vision), Transformer.decoder(text)
    patches = patches_along(vision.height("image_size"), vision.height("patch_size")) ** 2
    tokens, width = patches // 4, 4 * tower.width
    crops = 1 + MOST_TILES if frames is None else frames
    return Geometry(
        tower=tower,
        tower_tokens=1 + patches,
        crop_tokens=tokens,
        width=width,
        crops=crops,
        usual_crops=crops,
        fixed=True,
        extra_macs=tokens * (width + decoder.width) * decoder.width,
        decoder=decoder,
        vocabulary=text.vocab_size,
    )


declare(
    Family(
        "internvl",
        read,
        padding="stretched to the nearest grid of tiles, and to a thumbnail",
        prompt="the checkpoint's chat template",
        clips=True,
        encoder=ANY_SIZE,
    )
)
