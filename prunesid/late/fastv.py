"""FastV (ECCV 2024): the visual tokens that the last prompt token attends to stay.

Layers 0..K-1 run on everything. From the last prompt token's row of attention in layer K-1, mean
over heads, the R visual tokens of highest weight go on to layer K and all later ones.

R follows from the budget N: R = (L N - T K) / (L - K), rounded, for L layers and T tokens; K is 2
of 32 layers, scaled to the decoder's depth. The mean it hits is that of the rounded R.

Different from upstream: its lmms-eval file has K = 3 and keeps half of the tokens (`k=3, keep=288`
without a budget restores that); its KV-cache variant runs layer K-1 twice and so stores its keys
and values twice, here they are stored once; tokens are dropped once, in prefill (its variant
without a cache chooses anew at every step); ties go to the lower index.
"""

from __future__ import annotations

import torch

from prunesid.late import register
from prunesid.late.schedule import (
    ORIGINAL,
    Choice,
    Schedule,
    Shape,
    Stage,
    full_layers,
    tokens_after,
    top,
)
from prunesid.late.view import View
from prunesid.parameters import Param


@register(
    "fastv",
    params={
        "k": Param(None, int, minimum=1),
        "keep": Param(None, int, minimum=1),
        "positions": ORIGINAL,
    },
)
def fastv(
    shape: Shape, budget: int | None, *, k: int | None, keep: int | None, positions: str
) -> Schedule:
    """Keep R tokens behind layer K-1: `keep`, or as many as the budget allows."""
    layers = full_layers(shape, k, published=2)
    count = tokens_after("fastv", shape, layers, budget, keep)

    def choose(view: View) -> Choice:
        last = torch.tensor([len(view.text_hidden) - 1], device=view.hidden.device)
        return Choice(top(view.attention(last)[0], count), macs=view.attention_macs(1))

    return Schedule((Stage(layers - 1, choose, leaves=count),), positions)
