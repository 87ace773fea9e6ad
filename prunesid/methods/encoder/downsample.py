"""A smaller image into the encoder: the baseline that spares the encoder, too.

The image (or crop, or frame) is shrunk to the largest square of patches that the budget has room for:
8 x 8 = 64 tokens for 64, 11 x 11 = 121 for 128, 13 x 13 = 169 for 192. Of a crop with padding only the
patches that show any of the image count, and come out. What the model's own processor made of the image
is resized (bicubic, antialiased); position embeddings are interpolated (bicubic, as transformers does).

Encoders that take images of any size get the largest image of about the same aspect ratio whose tokens
the budget has room for.
"""

from __future__ import annotations

from prunesid.core.costs import EncoderShape
from prunesid.methods.encoder import register
from prunesid.methods.encoder.plan import Plan


def smaller_grid(whole: tuple[int, int], budget: int) -> tuple[int, int]:
    """The largest grid within the budget of those that keep the aspect ratio up to rounding."""
    rows, columns = whole
    grids = {(r, max(1, round(r * columns / rows))) for r in range(1, rows + 1)}
    grids |= {(max(1, round(c * rows / columns)), c) for c in range(1, columns + 1)}
    return max((r * c, r, c) for r, c in grids if r * c <= budget)[1:]


@register("downsample", grid=smaller_grid)
def downsample(shape: EncoderShape, budget: int) -> Plan:
    """All patches of the smaller image, in raster order; every index is -1."""
    # One patch shows some of any image.
    sides = range(shape.side, 0, -1)
    side = next(side for side in sides if shape.box.scaled(shape.side, side).size <= budget)
    shown = None if shape.shown is None else shape.box.scaled(shape.side, side)
    return Plan(side, (0,) * shape.read, shown=shown)
