"""DART (EMNLP 2025): a few pivots stay, and with them the tokens least like them.

Layers 0..K-1 run on everything. Pivots are the 4 visual and the 4 later-text tokens whose keys in
layer K-1 (heads concatenated, as cached: after the rotary embedding) have the largest L1 norm. On
the final norm of the states entering layer K, each pivot in turn takes the t remaining visual
tokens of lowest cosine to it. Visual pivots and all that was taken go on, at their original
positions.

The count per pivot truncates, so that a budget is rarely met: with R wanted tokens (FastV's formula)
t = int(T (1 - (1 - R / T)) / 8) in floating point, and 4 + 8 t tokens stay: 188 for R = 192 of 576.
`count="flag"` takes t = int(R / 8), as upstream's explicit number of tokens does: 196. The mean
that was hit is reported.

Different from upstream: pivots take their turns visual ones first, by descending norm (upstream
follows the order of a Python set); a text shorter than 4 tokens gives fewer pivots; K is 2 of 32
layers, scaled to the decoder's depth (`k=2` restores it); ties go to the lower index.
"""

from __future__ import annotations

import torch
from torch import Tensor

from prunesid.late import register
from prunesid.late.schedule import (
    ORIGINAL,
    Choice,
    Schedule,
    Shape,
    Stage,
    full_layers,
    tokens_after,
)
from prunesid.late.view import View
from prunesid.numerics import on_grid, rank_descending
from prunesid.parameters import Param


@register(
    "dart",
    params={
        "k": Param(None, int, minimum=1),
        "keep": Param(None, int, minimum=1),
        "image_pivots": Param(4, int, minimum=1),
        "text_pivots": Param(4, int, minimum=0),
        "count": Param("ratio", str, ("ratio", "flag")),
        "positions": ORIGINAL,
    },
)
def dart(
    shape: Shape,
    budget: int | None,
    *,
    k: int | None,
    keep: int | None,
    image_pivots: int,
    text_pivots: int,
    count: str,
    positions: str,
) -> Schedule:
    """Keep about R tokens behind layer K-1: `keep`, or as many as the budget allows."""
    layers = full_layers(shape, k, published=2)
    wanted = tokens_after("dart", shape, layers, budget, keep)
    pivots = image_pivots + text_pivots
    ratio = 1 - wanted / shape.tokens
    each = int(shape.tokens * (1 - ratio) / pivots) if count == "ratio" else wanted // pivots

    def choose(view: View) -> Choice:
        visual = _largest(view.keys, image_pivots)
        text = _largest(view.text_keys, text_pivots)
        states = _unit(view.norm(view.hidden))
        leaders = torch.cat([states[visual], _unit(view.norm(view.text_hidden))[text]])
        cosine = on_grid(leaders @ states.T)
        kept = torch.zeros(len(states), dtype=torch.bool, device=states.device)
        kept[visual] = True
        for row in cosine:
            farthest = row.masked_fill(kept, torch.inf).argsort(stable=True)
            kept[farthest[: min(each, int((~kept).sum()))]] = True
        return Choice(torch.nonzero(kept)[:, 0], macs=cosine.numel() * states.shape[1])

    leaves = min(shape.tokens, image_pivots + pivots * each)
    return Schedule((Stage(layers - 1, choose, leaves=leaves),), positions)


def _largest(keys: Tensor, count: int) -> Tensor:
    """Places of the `count` keys (n, C) of largest L1 norm, that one first."""
    rank = rank_descending(on_grid(keys.double().abs().sum(dim=1))[None])[0]
    return rank.argsort()[:count]


def _unit(states: Tensor) -> Tensor:
    return torch.nn.functional.normalize(states.double(), dim=1)
