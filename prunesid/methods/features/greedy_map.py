"""Greedy MAP inference of a determinantal point process (DPP), shared by `dpp` and `cdpruner`.

The kernel is w_i S_ij w_j, where S is the cosine similarity of the projected tokens and w_i the
weight of token i. Every step takes the token that adds most to the determinant and adds one row to
an incremental Cholesky factor (Chen et al., NeurIPS 2018). So a smaller budget keeps a prefix.

When no token adds to the determinant any more (beyond the rank of the features), the other tokens
follow by descending weight. Gains are float64 on a grid; ties go to the lower index.
"""

from __future__ import annotations

from prunesid.core.costs import Visual
from prunesid.core.delayed import Tensor, torch
from prunesid.core.numerics import on_grid, rank_of_picks
from prunesid.methods.features.prunesid.information import cosine
from prunesid.methods.features.ragged import largest_partial
from prunesid.methods.registry import Resolved


def ranked(projected: Tensor, weight: Tensor | None, budget: Tensor) -> Tensor:
    """(B, T) place of each token in the order of picks; after the picks, the rest by raster order.

    projected  (B, T, E)
    weight     (B, T) float64, 0 or more; None: all weights are 1
    budget     (B,) int64; the largest one that leaves a choice is the number of picks
    """
    # Not rounded, unlike elsewhere: rounding would change the rank of the kernel.
    similarities = cosine(projected)
    batch, tokens = similarities.shape[:2]
    weight = torch.ones_like(similarities[:, :, 0]) if weight is None else weight
    steps = largest_partial(budget, tokens)
    picks = budget.new_empty((batch, steps))
    rows = similarities.new_zeros((batch, steps, tokens))  # of the Cholesky factor
    gain = weight**2 * similarities.diagonal(dim1=1, dim2=2)
    taken = torch.zeros_like(gain, dtype=torch.bool)
    for place in range(steps):
        free = on_grid(gain).masked_fill(taken, -torch.inf)
        spent = free.amax(dim=1, keepdim=True) <= 0
        left = torch.where(spent, weight, free).masked_fill(taken, -torch.inf)
        pick = left.argmax(dim=1, keepdim=True)
        picks[:, place] = pick[:, 0]
        taken.scatter_(1, pick, True)
        everyone = pick[:, :, None].expand(batch, tokens, 1)
        kernel = similarities.gather(2, everyone)[:, :, 0] * weight * weight.gather(1, pick)
        known = rows[:, :place]
        explained = known.gather(2, everyone[:, :place]).transpose(1, 2) @ known
        pivot = gain.gather(1, pick).masked_fill(spent, 1).sqrt()
        row = ((kernel - explained[:, 0]) / pivot).masked_fill(spent, 0)
        rows[:, place] = row
        gain = gain - row**2
    return rank_of_picks(picks, tokens)


def macs(visual: Visual, budget: int, params: Resolved) -> int:
    """Multiply-adds of all projected tokens' similarities, and of the Cholesky factor's rows."""
    factor = budget * (budget - 1) // 2 + budget
    return visual.tokens**2 * visual.projected + visual.tokens * factor
