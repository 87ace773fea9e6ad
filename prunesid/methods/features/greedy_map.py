"""Greedy MAP inference of a determinantal point process (DPP), shared by `dpp` and `cdpruner`.

The kernel is w_i S_ij w_j, where S is the cosine similarity of the projected tokens and w_i the
weight of token i. Every step takes the token that adds most to the determinant and adds one row to
an incremental Cholesky factor (Chen et al., NeurIPS 2018). So a smaller budget keeps a prefix.

When no token adds to the determinant any more (beyond the rank of the features), the other tokens
follow by descending weight. Gains are float64 on a grid; ties go to the lower index.
"""

from __future__ import annotations

from collections.abc import Callable

from prunesid.core.costs import Visual
from prunesid.core.delayed import Tensor, torch
from prunesid.core.numerics import (
    GramRows,
    few_rows,
    on_grid,
    rank_of_picks,
    rough_gram,
    row_of,
)
from prunesid.methods.features.prunesid.information import cosine, unit
from prunesid.methods.features.ragged import largest_partial
from prunesid.methods.registry import Resolved


def ranked(projected: Tensor, weight: Tensor | None, budget: Tensor) -> Tensor:
    """(B, T) place of each token in the order of picks; after the picks, the rest by raster order.

    projected  (B, T, E)
    weight     (B, T) float64, 0 or more; None: all weights are 1
    budget     (B,) int64; the largest one that leaves a choice is the number of picks
    """
    batch, tokens = projected.shape[:2]
    steps = largest_partial(budget, tokens)
    if weight is None:
        weight = torch.ones((batch, tokens), dtype=torch.float64, device=projected.device)
    if few_rows(projected, steps):
        images = zip(projected.split(1), weight.split(1), strict=True)
        picks = torch.cat([_picks_by_rows(*image, steps) for image in images])
    else:
        # Not rounded, unlike elsewhere: rounding would change the rank of the kernel.
        picks = _picks_by_gram(cosine(projected), weight, steps)
    return rank_of_picks(picks, tokens)


def _picks_by_gram(similarities: Tensor, weight: Tensor, steps: int) -> Tensor:
    """(B, steps) tokens in the order of their selection, from (B, T, T) and (B, T)."""
    own = similarities.diagonal(dim1=1, dim2=2)
    return _picks(own, lambda pick: row_of(similarities, pick), weight, steps)


def _picks_by_rows(projected: Tensor, weight: Tensor, steps: int) -> Tensor:
    """The picks of `_picks_by_gram` for one image (1, T, E), from the rows that they need."""
    tokens = unit(projected)
    guess = _picks_by_gram(rough_gram(tokens), weight.float(), steps)
    rows = GramRows(tokens[0], guess[0])
    own = torch.linalg.vector_norm(tokens, dim=2) ** 2
    return _picks(own, lambda pick: rows.at(pick[0]), weight, steps)


def _picks(own: Tensor, row: Callable[[Tensor], Tensor], weight: Tensor, steps: int) -> Tensor:
    """(B, steps) tokens in the order of their selection.

    own     (B, T) similarity of each token to itself
    row     gives the similarities (B, T) of all tokens to the picks (B, 1)
    weight  (B, T)
    """
    batch, tokens = weight.shape
    picks = torch.empty((batch, steps), dtype=torch.int64, device=weight.device)
    rows = weight.new_zeros((batch, steps, tokens))  # of the Cholesky factor
    # Minus infinity for the tokens taken.
    gain, left = weight**2 * own, weight.clone()
    for place in range(steps):
        free = on_grid(gain)
        spent = free.amax(dim=1, keepdim=True) <= 0
        pick = torch.where(spent, left, free).argmax(dim=1, keepdim=True)
        picks[:, place] = pick[:, 0]
        pivot = gain.gather(1, pick).masked_fill(spent, 1).sqrt()
        kernel = row(pick) * weight * weight.gather(1, pick)
        known = rows[:, :place]
        explained = known.gather(2, pick[:, None].expand(-1, place, -1)).transpose(1, 2) @ known
        new = ((kernel - explained[:, 0]) / pivot).masked_fill(spent, 0)
        rows[:, place] = new
        gain = (gain - new**2).scatter_(1, pick, -torch.inf)
        left.scatter_(1, pick, -torch.inf)
    return picks


def macs(visual: Visual, budget: int, params: Resolved) -> int:
    """Multiply-adds of all projected tokens' similarities, and of the Cholesky factor's rows."""
    factor = budget * (budget - 1) // 2 + budget
    return visual.tokens**2 * visual.projected + visual.tokens * factor
