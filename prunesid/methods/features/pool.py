"""Average pooling to a smaller grid: the baseline of a lower resolution of the features.

The grid keeps the aspect ratio, and its number of cells is the nearest to the budget. So the count
does not always equal the budget: on 24 x 24 patches, budgets of 64, 128 and 192 give 8 x 8 = 64,
11 x 11 = 121 and 14 x 14 = 196 tokens.
"""

from __future__ import annotations

from prunesid.core.costs import Visual
from prunesid.core.delayed import Tensor, torch
from prunesid.core.record import MEMBERS, Kept, VisionRecord
from prunesid.core.seeding import Draws
from prunesid.methods.features import register
from prunesid.methods.features.ragged import per_budget
from prunesid.methods.registry import Resolved


def pooled_grid(rows: int, columns: int, budget: int) -> tuple[int, int]:
    """(rows, columns) of the grid nearest to the budget; both sides shrink by the same factor."""
    sizes = {(max(1, round(rows * s / columns)), s) for s in range(1, columns + 1)}
    return min(sizes, key=lambda size: (abs(size[0] * size[1] - budget), size))


def _cells(grid: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """(cells, M) int16 patches of a grid in each cell of `adaptive_avg_pool2d`, padded with -1."""
    rows, columns = (
        [range(i * whole // parts, -(-(i + 1) * whole // parts)) for i in range(parts)]
        for whole, parts in zip(grid, size, strict=True)
    )
    cells = [[r * grid[1] + c for r in down for c in across] for down in rows for across in columns]
    most = max(map(len, cells))
    return torch.tensor([cell + [-1] * (most - len(cell)) for cell in cells], dtype=torch.int16)


def _macs(visual: Visual, budget: int, params: Resolved) -> int:
    """Multiply-adds: every patch goes into one mean."""
    return visual.tokens * visual.width


@register("pool", exact=False, macs=_macs)
def pool(record: VisionRecord, budget: Tensor, draws: Draws) -> Kept:
    """Keep the mean of the patches in each cell, in raster order; every index is -1.

    A record without a grid counts as a single row.

    info: members, (B, N, M) int16, the patches of each cell, padded with -1.
    """

    def run(images: VisionRecord, count: int) -> Kept:
        rows, columns = images.grid or (1, images.num_tokens)
        size = pooled_grid(rows, columns, count)
        maps = images.tokens.double().transpose(1, 2).unflatten(2, (rows, columns))
        pooled = torch.nn.functional.adaptive_avg_pool2d(maps, size).flatten(2).transpose(1, 2)
        shape = pooled.shape[:2]
        device = images.features.device
        return Kept(
            tokens=pooled.to(images.features.dtype),
            index=torch.full(shape, -1, dtype=torch.long, device=device),
            count=torch.full(shape[:1], shape[1], dtype=torch.long, device=device),
            info={MEMBERS: _cells((rows, columns), size).to(device).expand(len(pooled), -1, -1)},
        )

    return per_budget(record, budget, run)
