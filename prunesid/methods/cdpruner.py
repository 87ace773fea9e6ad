"""CDPruner (Zhang et al., NeurIPS 2025): a diverse subset as a determinantal point process has it.

Greedy MAP inference on the kernel r_i S_ij r_j, with S the cosine similarity of the projected
tokens and r the relevance of each to the question. Raster order.

The default is the text-free form, r = 1: the relevance comes from CLIP's text tower, which LLaVA
checkpoints and Pocket-LLaVA do not have. `relevance="question"` reads the record's `relevance`,
which whoever has that tower can fill, and scales it as upstream does: negated, min-max, with 1e-6
added to the numerator, so that the least relevant token keeps some weight.

With r = 1 the first token is the first patch, since all gains are equal then.

Different from upstream: when no token adds to the determinant any more (beyond the rank of the
features), the most relevant of the others follow, each once; upstream's recursion then takes roots
of negative numbers and repeats tokens. The scaling is per image, not over a whole batch; gains are
float64 on a grid; ties go to the lower index.
"""

from __future__ import annotations

import torch
from torch import Tensor

from prunesid.accounting import Visual
from prunesid.crops import Crops
from prunesid.information import cosine
from prunesid.methods import Needs, register
from prunesid.methods.ragged import largest_partial
from prunesid.numerics import on_grid, rank_of_picks
from prunesid.parameters import Param
from prunesid.parametric import Resolved
from prunesid.record import Kept, VisionRecord, keep
from prunesid.seeding import Draws

EPSILON = 1e-6


def _needs(params: Resolved) -> Needs:
    return Needs(projected=True, relevance=params["relevance"] == "question")


def _macs(visual: Visual, budget: int, params: Resolved) -> int:
    """Similarities of all projected tokens, and step by step the rows of the Cholesky factor."""
    factor = budget * (budget - 1) // 2 + budget
    return visual.tokens**2 * visual.projected + visual.tokens * factor


@register(
    "cdpruner",
    params={"relevance": Param("none", str, ("none", "question"))},
    needs=_needs,
    crops=Crops(),
    macs=_macs,
)
def cdpruner(record: VisionRecord, budget: Tensor, draws: Draws, *, relevance: str) -> Kept:
    """Greedy MAP of a DPP by incremental Cholesky; a smaller budget keeps a prefix.

    relevance  "none" (text-free) or "question" (`record.relevance`)
    """
    if record.projected is None or (relevance == "question" and record.relevance is None):
        raise ValueError("cdpruner needs a record with projected tokens (and relevance, if used)")
    # Not rounded, unlike elsewhere: rounding would give the kernel a rank that is not its own.
    similarities = cosine(record.projected)
    batch, tokens = similarities.shape[:2]
    weight = torch.ones_like(similarities[:, :, 0])
    if relevance == "question" and record.relevance is not None:
        weight = scaled_relevance(record.relevance)
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
    return keep(record, rank_of_picks(picks, tokens), budget)


def scaled_relevance(relevance: Tensor) -> Tensor:
    """Similarities to the question (B, T) as weights (B, T) float64: negated, scaled to 0..1.

    An image whose tokens are all equally relevant has weight 1 throughout.
    """
    value = -relevance.double()
    low, high = value.aminmax(dim=1, keepdim=True)
    spread = high - low
    # A spread below epsilon would make that the larger term, and the weights anything.
    level = spread <= EPSILON
    weight = (value - low + EPSILON) / spread.masked_fill(level, 1)
    return on_grid(weight.masked_fill(level, 1))
