"""Downsampling of the encoder's input image, the baseline that also saves encoder compute.

The image (or crop, or frame) shrinks to the largest square of patches within the budget: 8 x 8 = 64
tokens for 64, 11 x 11 = 121 for 128, 13 x 13 = 169 for 192. In a crop with padding, only patches
that show some of the image count and come out. The output of the model's own processor is resized
(bicubic, antialiased). Position embeddings are interpolated (bicubic, as in transformers).

Encoders that take images of any size get the largest image of about the same aspect ratio whose
tokens are within the budget.
"""

from __future__ import annotations

from prunesid.core.costs import EncoderShape
from prunesid.methods.encoder import register
from prunesid.methods.encoder.plan import Plan


def smaller_grid(whole: tuple[int, int], budget: int) -> tuple[int, int]:
    """The largest grid within the budget that keeps the aspect ratio up to rounding."""
    rows, columns = whole
    grids = {(r, max(1, round(r * columns / rows))) for r in range(1, rows + 1)}
    grids |= {(max(1, round(c * rows / columns)), c) for c in range(1, columns + 1)}
    return max((r * c, r, c) for r, c in grids if r * c <= budget)[1:]


@register("downsample", grid=smaller_grid)
def downsample(shape: EncoderShape, budget: int) -> Plan:
    """All patches of the smaller image, in raster order; every index is -1."""
    # A single patch always shows some of the image.
    sides = range(shape.side, 0, -1)
    side = next(side for side in sides if shape.box.scaled(shape.side, side).size <= budget)
    shown = None if shape.shown is None else shape.box.scaled(shape.side, side)
    return Plan(side, (0,) * shape.read, shown=shown)
