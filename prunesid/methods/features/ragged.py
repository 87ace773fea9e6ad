"""Budgets that differ between images, for methods that work on one budget at a time."""

from __future__ import annotations

from collections.abc import Callable

from prunesid.core.delayed import Tensor, torch
from prunesid.core.record import Kept, VisionRecord, keep


def per_budget(
    record: VisionRecord, budget: Tensor, run: Callable[[VisionRecord, int], Kept]
) -> Kept:
    """Call `run(images, N)` on the images of each budget N below T; the others stay unchanged.

    budget  (B,) int64
    run     gives the same info names for every N; unchanged images have none (`Kept.cat`)
    """
    tokens = record.num_tokens
    parts: list[Kept] = []
    order: list[Tensor] = []
    for value in budget.clamp(max=tokens).unique().tolist():
        rows = (budget.clamp(max=tokens) == value).nonzero()[:, 0]
        order.append(rows)
        parts.append(
            run(record.rows(rows), value)
            if value < tokens
            else keep(record.rows(rows), _raster(rows, tokens), budget[rows])
        )
    whole = Kept.cat(parts)
    back = torch.cat(order).argsort()
    return Kept(
        tokens=whole.tokens[back],
        index=whole.index[back],
        count=whole.count[back],
        info={name: value[back] for name, value in whole.info.items()},
    )


def largest_partial(budget: Tensor, tokens: int) -> int:
    """The largest of the budgets (B,) that are below T; 0 if none is."""
    return int(budget.masked_fill(budget >= tokens, 0).max())


def _raster(rows: Tensor, tokens: int) -> Tensor:
    return torch.arange(tokens, device=rows.device).expand(len(rows), tokens)
