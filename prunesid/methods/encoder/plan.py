"""How many patches each block of an encoder sees, decided before any image is.

The encoder is one with a CLS token and a square of patches (CLIP's).
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
    """What becomes of the patches of a crop.

    side          rows, and columns, of the patches that enter; fewer than the encoder's own: a smaller
                  image
    merged        (read) patches that each block merges into others, between attention and MLP
    proportional  whether attention counts a merged token as often as patches are in it
    raster        whether tokens come out by their first patch; else as the last merge left them
    shown         those of the patches that enter which may merge and come out; None: all. The others,
                  which are padding, enter every block as in the unmodified encoder
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
    def beside(self) -> int:
        """Patches of the padding, which enter every block and do not come out."""
        return self.side**2 - self.box.size

    @property
    def entering(self) -> tuple[int, ...]:
        """(read + 1) of these patches that enter each block, and those that are left at the end."""
        return tuple(accumulate(self.merged, lambda left, gone: left - gone, initial=self.box.size))

    @property
    def tokens(self) -> int:
        """Patches that are left, N."""
        return self.entering[-1]

    def encoder_macs(self, tower: Transformer) -> int:
        """Multiply-adds of the encoder for one crop, CLS and padding included.

        Blocks behind the features count as those of every other method do, whose pass runs them.
        """
        blocks = zip(self.entering, self.entering[1:], strict=False)
        always = 1 + self.beside
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
