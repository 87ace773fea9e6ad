"""A smaller image into the encoder: the baseline that spares the encoder, too.

The image is shrunk to the largest square of patches that the budget has room for: 8 x 8 = 64 tokens for
64, 11 x 11 = 121 for 128, 13 x 13 = 169 for 192. What the model's own processor made of the image is
resized (bicubic, antialiased); position embeddings are interpolated (bicubic, as transformers does it).
"""

from __future__ import annotations

from math import isqrt

from prunesid.encoding import register
from prunesid.encoding.plan import Plan, Shape


@register("downsample")
def downsample(shape: Shape, budget: int) -> Plan:
    """All patches of the smaller image, in raster order; every index is -1."""
    return Plan(isqrt(budget), (0,) * shape.read)
