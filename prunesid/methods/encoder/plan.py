"""Plans of how many patches each block of an encoder sees, made before any image is known.

The encoder has a CLS token and a square grid of patches, like CLIP's.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

from prunesid.core.rectangle import Box

if TYPE_CHECKING:
    from prunesid.core.costs import Transformer


@dataclass(frozen=True)
class Plan:
    """The path of a crop's patches through the encoder.

    side          rows, and also columns, of the patches that enter; fewer than the encoder's own
                  mean a smaller image
    merged        (read) number of patches that each block merges into others, between attention and
                  MLP; one entry per block that runs until the features are read
    proportional  True: attention counts a merged token as often as there are patches in it
    raster        True: tokens come out in the order of their first patches; False: in the order in
                  which the last merge left them
    shown         the entering patches that may merge and come out; None: all. The other patches are
                  padding and enter every block as in the unmodified encoder
    """

    side: int
    merged: tuple[int, ...]
    proportional: bool = True
    raster: bool = False
    shown: Box | None = None

    @property
    def box(self) -> Box:
        """The patches that may come out."""
        return self.shown or Box(0, 0, self.side, self.side)

    @property
    def padding(self) -> int:
        """Number of padding patches, which enter every block and do not come out."""
        return self.side**2 - self.box.size

    @property
    def entering(self) -> tuple[int, ...]:
        """(read + 1) counts: the patches in `box` that enter each block, then those left."""
        return tuple(accumulate(self.merged, lambda left, gone: left - gone, initial=self.box.size))

    @property
    def tokens(self) -> int:
        """N, the number of patches left."""
        return self.entering[-1]

    def encoder_macs(self, tower: Transformer) -> int:
        """Multiply-adds of the encoder for one crop, CLS and padding included.

        Blocks after the features count, too: the pass of every other method runs them.
        """
        blocks = zip(self.entering, self.entering[1:], strict=False)
        always = 1 + self.padding
        run = sum(tower.layer_macs(always + before, always + after) for before, after in blocks)
        return run + (tower.layers - len(self.merged)) * tower.layer_macs(always + self.tokens)

    def choice_macs(self, tower: Transformer) -> int:
        """Multiply-adds of finding and merging pairs, for one crop."""
        total = 0
        for patches, merged in zip(self.entering, self.merged, strict=False):
            if merged:
                total += (patches + 2) // 2 * ((patches + 1) // 2) * tower.head_dim
                total += merged * tower.width
        return total
