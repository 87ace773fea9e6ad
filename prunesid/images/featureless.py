"""Records of crops without features: only their sizes and the inputs that they belong to.

Methods inside the encoder compute no ordinary features, and costs are counted without any.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from prunesid.core.record import VisionRecord
from prunesid.images.records import Medium, Records
from prunesid.methods.features import NOTHING


def outline(
    grids: Sequence[tuple[int, int]],
    cls: Tensor,
    inputs: Mapping[str, tuple[Medium, ...]],
    share: int | None = None,
    crops: Mapping[str, Any] = NOTHING,
) -> Records:
    """Records of R crops with ordinary sizes, budgets and CLS tokens, and features of zeros.

    grids  (R) rows and columns of the patches of each crop
    cls    (R, D) CLS tokens; the features have their width, dtype and device, and take no memory

    inputs, share, crops  as in `Records`
    """
    rows: dict[tuple[int, int], list[int]] = {}
    for row, grid in enumerate(grids):
        rows.setdefault(grid, []).append(row)
    none = cls.new_zeros(1, 1, 1)
    groups = tuple(
        VisionRecord(none.expand(len(own), grid[0] * grid[1], cls.shape[1]), cls[own], grid=grid)
        for grid, own in rows.items()
    )
    return Records(groups, tuple(map(tuple, rows.values())), inputs, share, crops)
