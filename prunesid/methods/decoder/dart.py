"""DART (EMNLP 2025): a few pivots stay, and with them the tokens least like them.

Layers 0..K-1 run on everything. Pivots are the 4 visual and the 4 later-text tokens whose keys in
layer K-1 (heads concatenated, as cached: after the rotary embedding) have the largest L1 norm. On
the final norm of the states entering layer K, each pivot in turn takes the t remaining visual
tokens of lowest cosine to it. Visual pivots and all that was taken go on, at their original
positions.

The count per pivot truncates, so that a budget is rarely met: with R wanted tokens (FastV's formula;
with `budget_counts="after"` the budget itself) t = int(T (1 - (1 - R / T)) / 8) in floating point,
and 4 + 8 t tokens stay: 188 for R = 192 of 576. `count="flag"` takes t = int(R / 8), as upstream's
explicit number of tokens does: 196. The mean that was hit is reported.

Pivots take their turns visual ones first, each kind by descending norm. Upstream goes through a
Python set of their places in the sequence, in whatever order CPython has it; `pivot_order="set"`
builds the same set.

Different from upstream: a text shorter than 4 tokens gives fewer pivots; K is 2 of 32 layers, scaled
to the decoder's depth (`k=2` restores it); ties go to the lower index.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from prunesid.core.numerics import COSINE_GRID, on_grid, rank_descending
from prunesid.core.parameters import Param
from prunesid.methods.decoder import register
from prunesid.methods.decoder.schedule import (
    BUDGET_COUNTS,
    ONCE,
    ORIGINAL,
    Choice,
    Schedule,
    Shape,
    Stage,
    full_layers,
    tokens_after,
)
from prunesid.methods.decoder.view import View
from prunesid.methods.registry import Source, Upstream


@register(
    "dart",
    params={
        "k": Param(None, int, minimum=1),
        "keep": Param(None, int, minimum=1),
        "budget_counts": BUDGET_COUNTS,
        "image_pivots": Param(4, int, minimum=1),
        "text_pivots": Param(4, int, minimum=0),
        "pivot_order": Param("norm", str, ("norm", "set")),
        "count": Param("ratio", str, ("ratio", "flag")),
        "positions": ORIGINAL,
    },
    source=Source(
        title="Stop Looking for Important Tokens in Multimodal Language Models: Duplication Matters More",
        venue="EMNLP 2025",
        repository="Chenfei-Liao/VTC-Bench",
        commit="983e443ebb41fac8db19829499fe388c87885b58",
        golden=("dart",),
        upstream={
            **ONCE,
            "pivot_order": Upstream(
                "set",
                "the order of a set depends on where in the prompt the image stands",
            ),
            "count": Upstream(
                "flag",
                "of 192 wanted tokens the ratio keeps 188, the number 196: a budget is not exceeded",
            ),
        },
    ),
)
def dart(
    shape: Shape,
    budget: int | None,
    *,
    k: int | None,
    keep: int | None,
    budget_counts: str,
    image_pivots: int,
    text_pivots: int,
    pivot_order: str,
    count: str,
    positions: str,
) -> Schedule:
    """Keep about R tokens after layer K-1.

    k, keep        K, by default 2 of 32 layers, and R, by default what the budget makes it
    budget_counts  what the budget is: "mean" (over all layers of the tokens that enter one) or
                   "after" (R itself, as published)
    image_pivots, text_pivots  how many of each
    pivot_order    in which pivots take their turns: "norm", or "set" (of CPython)
    count          how R is rounded: "ratio" or "flag", see above
    positions      rotary positions of what goes on: "original" or "renumbered"
    """
    layers = full_layers(shape, k, published=2)
    wanted = tokens_after("dart", shape, layers, budget, keep, budget_counts)
    pivots = image_pivots + text_pivots
    ratio = 1 - wanted / shape.tokens
    each = int(shape.tokens * (1 - ratio) / pivots) if count == "ratio" else wanted // pivots

    def choose(view: View) -> Choice:
        visual = _largest(view.keys, image_pivots)
        text = _largest(view.text_keys, text_pivots)
        states = _unit(view.norm(view.hidden))
        leaders = torch.cat([states[visual], _unit(view.norm(view.text_hidden))[text]])
        if pivot_order == "set":
            leaders = leaders[_set_order([*view.places[visual], *view.text_places[text]])]
        cosine = on_grid(leaders @ states.T, COSINE_GRID)
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


def _set_order(places: Sequence[Tensor]) -> list[int]:
    """The numbers of `places` in the order in which CPython goes through a set of them."""
    found = [int(place) for place in places]
    # Of the list: a set of a dict's keys is laid out otherwise.
    return [found.index(place) for place in set(found)]


def _unit(states: Tensor) -> Tensor:
    return torch.nn.functional.normalize(states.double(), dim=1)
