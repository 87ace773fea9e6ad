"""DART (EMNLP 2025): a few pivot tokens stay, with the tokens least similar to them.

Layers 0..K-1 see all tokens. Pivots are the 4 visual tokens and the 4 text tokens after the image
whose keys in layer K-1 (heads concatenated, as cached after the rotary embedding) have the largest
L1 norm. In turn, each pivot takes the t remaining visual tokens of lowest cosine to it, computed on
the final norm of the states that enter layer K. Visual pivots and all tokens that were taken go on,
at their original positions.

The count per pivot truncates, so a budget is rarely met exactly. R is the wanted number of tokens,
by FastV's formula, or the budget itself with `budget_counts="after"`. Then
t = int(T (1 - (1 - R / T)) / 8) in floating point, and 4 + 8 t tokens stay: 188 for R = 192 of 576.
`count="flag"` takes t = int(R / 8), like upstream's explicit number of tokens: 196. The realized
mean is reported.

Visual pivots take their turns first, then text pivots, each by descending norm. Upstream iterates
over a Python set of their places in the sequence, in CPython's order; `pivot_order="set"` builds
the same set.

Differences from upstream: a text shorter than 4 tokens gives fewer pivots. K is 2 of 32 layers,
scaled to the decoder's depth (`k=2` restores it). Ties go to the lower index.
"""

from __future__ import annotations

from collections.abc import Sequence

from prunesid.core.delayed import Tensor, torch
from prunesid.core.numerics import COSINE_GRID, on_grid, rank_descending
from prunesid.core.parameters import Param
from prunesid.methods.decoder import register
from prunesid.methods.decoder.schedule import (
    BUDGET_COUNTS,
    ONCE,
    ORIGINAL,
    Choice,
    DecoderShape,
    Schedule,
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
        title="Stop Looking for Important Tokens in Multimodal Language Models: Duplication "
        "Matters More",
        venue="EMNLP 2025",
        repository="Chenfei-Liao/VTC-Bench",
        commit="983e443ebb41fac8db19829499fe388c87885b58",
        golden=("dart",),
        upstream={
            **ONCE,
            "pivot_order": Upstream(
                "set",
                "the order of a set depends on the image's place in the prompt",
            ),
            "count": Upstream(
                "flag",
                "for 192 tokens the ratio keeps 188 and does not exceed the budget; the flag keeps "
                "196",
            ),
        },
    ),
)
def dart(
    shape: DecoderShape,
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

    k              K, by default 2 of 32 layers, scaled to the decoder's depth
    keep           R, by default from the budget
    budget_counts  meaning of the budget: "mean" (of the tokens that enter a layer, over all layers)
                   or "after" (R itself, as published)
    image_pivots   number of visual pivots
    text_pivots    number of text pivots
    pivot_order    order in which pivots take their turns: "norm", or "set" (as in CPython)
    count          rounding of R: "ratio" or "flag", see the module
    positions      rotary positions of the tokens that go on: "original" or "renumbered"
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
    """Places of the `count` keys (n, C) of largest L1 norm, in descending order of norm."""
    rank = rank_descending(on_grid(keys.double().abs().sum(dim=1))[None])[0]
    return rank.argsort()[:count]


def _set_order(places: Sequence[Tensor]) -> list[int]:
    """The indices of `places` in the order in which CPython iterates over a set of them."""
    found = [int(place) for place in places]
    # A set of the list, since a set of a dict's keys has another layout.
    return [found.index(place) for place in set(found)]


def _unit(states: Tensor) -> Tensor:
    return torch.nn.functional.normalize(states.double(), dim=1)
