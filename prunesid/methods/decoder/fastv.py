"""FastV (ECCV 2024): the visual tokens that the last prompt token attends to most.

Layers 0..K-1 see all tokens. The R visual tokens of highest attention from the last prompt token in
layer K-1, mean over heads, go on to layer K and all later layers.

A budget N is a mean over layers, as for every method here: R = (L N - T K) / (L - K), rounded, for
L layers and T tokens. Upstream's number is R itself (`budget_counts="after"`). K is 2 of 32 layers,
scaled to the decoder's depth.

Differences from upstream: its lmms-eval file has K = 3 and keeps half of the tokens (`k=3,
keep=288` without a budget restores that). Its KV-cache variant runs layer K-1 twice and stores the
keys and values twice; here they are stored once. Here tokens are dropped once, in prefill; its
variant without a cache chooses anew at every step. Ties go to the lower index.
"""

from __future__ import annotations

from prunesid.core.delayed import torch
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
    top,
)
from prunesid.methods.decoder.view import View
from prunesid.methods.registry import Source


@register(
    "fastv",
    params={
        "k": Param(None, int, minimum=1),
        "keep": Param(None, int, minimum=1),
        "budget_counts": BUDGET_COUNTS,
        "positions": ORIGINAL,
    },
    source=Source(
        title="An Image is Worth 1/2 Tokens After Layer 2: Plug-and-Play Inference Acceleration "
        "for Large Vision-Language Models",
        venue="ECCV 2024",
        repository="pkunlp-icler/FastV",
        commit="d1659729b5bf1be225e99ee15783deeea80f63b1",
        golden=("fastv",),
        upstream=ONCE,
    ),
)
def fastv(
    shape: DecoderShape,
    budget: int | None,
    *,
    k: int | None,
    keep: int | None,
    budget_counts: str,
    positions: str,
) -> Schedule:
    """Keep R tokens after layer K-1.

    k              K, by default 2 of 32 layers, scaled to the decoder's depth
    keep           R, by default from the budget
    budget_counts  meaning of the budget: "mean" (of the tokens that enter a layer, over all layers)
                   or "after" (R itself, as published)
    positions      rotary positions of the tokens that go on: "original" or "renumbered"
    """
    layers = full_layers(shape, k, published=2)
    count = tokens_after("fastv", shape, layers, budget, keep, budget_counts)

    def choose(view: View) -> Choice:
        last = torch.tensor([len(view.text_hidden) - 1], device=view.hidden.device)
        return Choice(top(view.attention(last)[0], count), macs=view.attention_macs(1))

    return Schedule((Stage(layers - 1, choose, leaves=count),), positions)
