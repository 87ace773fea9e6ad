"""LLaVA-PruMerge and PruMerge+ (Shang et al., 2024): selected tokens, each with its neighbors in it.

Tokens are selected by the CLS attention of the tower's last block (one block after the features),
with all heads as one. To each, its 32 most similar tokens by that block's keys are added, selected
or not, weighted by their attention; one extra token is the attention-weighted sum of all that were
not selected. By descending attention, the extra token last.

Reproduced although one might not expect it: the weights do not sum to one and the token itself has
weight one, so that a token changes little; the extra token's weights are those of the softmax, so
that it is short.

variant  tokens
"fixed"     a given number: N - 1 selected and the extra one
"plus"      PruMerge+ at a given number: of N - 1 tokens half (rounded up) are selected, the others
            are a uniform grid. Upstream lays the grid over all tokens, selected ones included,
            which repeats tokens and drops as many from the extra one; here it is laid over the rest
            in raster order
"adaptive", "adaptive_plus"   as many as the attention has outliers, above Q3 + 1.5 (Q3 - Q1), and
            for "plus" the rest of the grid 0, s, 2 s, ... below T - 1, s = floor(T / selected) // 3.
            The budget does not count: `count` is what the image got, and only an image whose budget
            is T or more comes back unchanged. At least one is selected, s is at least 1, and where
            no token is left over there is no extra one (upstream fails or adds zeros)

Different from upstream: attention and similarity are float64 on a grid, and ties go to the lower
index; sums are float64.
"""

from __future__ import annotations

import torch
from torch import Tensor

from prunesid.accounting import Visual
from prunesid.information import similarity
from prunesid.methods import Needs, register
from prunesid.methods.ragged import per_budget
from prunesid.numerics import on_grid, rank_descending
from prunesid.parameters import Param
from prunesid.parametric import Resolved
from prunesid.record import Kept, VisionRecord
from prunesid.scores.cls_attention import ATTENTION_GRID
from prunesid.seeding import Draws

NEIGHBORS = 32
VARIANTS = ("fixed", "plus", "adaptive", "adaptive_plus")


def _macs(visual: Visual, budget: int, params: Resolved) -> int:
    """Similarities of all keys, the neighbors in each token, and the others in the extra one."""
    tokens, own = visual.tokens, budget - 1
    near = min(NEIGHBORS, tokens - 1)
    return visual.width * (tokens**2 + own * near + tokens - own)


@register(
    "prumerge",
    params={"variant": Param("fixed", str, VARIANTS)},
    needs=Needs(last_attention=True, last_keys=True),
    macs=_macs,
)
def prumerge(record: VisionRecord, budget: Tensor, draws: Draws, *, variant: str) -> Kept:
    """Select and merge; every token is made, so every index is -1.

    info: selected, (B, T) bool, the patches that the tokens but the last were made from; all False
    for an image that comes back unchanged.
    """

    def run(images: VisionRecord, count: int) -> Kept:
        if images.last_attention is None or images.last_keys is None:
            raise ValueError("prumerge needs a record with last_attention and last_keys")
        attention = on_grid(images.last_attention.double(), ATTENTION_GRID)
        rank = rank_descending(attention)
        if variant in ("fixed", "plus"):
            spread = (count - 1) // 2 if variant == "plus" else 0
            chosen = rank < count - 1 - spread
            extra = _spread(chosen, spread)
        else:
            number = _outliers(attention).clamp(min=1)[:, None]
            chosen = rank < number
            extra = torch.zeros_like(chosen)
            if variant == "adaptive_plus":
                raster = torch.arange(images.num_tokens, device=rank.device)
                step = (images.num_tokens // number // 3).clamp(min=1)
                extra = (raster % step == 0) & (raster < images.num_tokens - 1) & ~chosen
        order = _order(rank, chosen, extra)
        return _merge(images, attention, images.last_keys, chosen | extra, order)

    return per_budget(record, budget, run)


def _outliers(attention: Tensor) -> Tensor:
    """(B,) int64: values of attention (B, T) above the third quartile by 1.5 quartile ranges."""
    quarters = attention.new_tensor([0.25, 0.75])
    lower, upper = torch.quantile(attention, quarters, dim=1)
    return (attention > (upper + 1.5 * (upper - lower))[:, None]).sum(dim=1)


def _order(rank: Tensor, chosen: Tensor, extra: Tensor) -> Tensor:
    """(B, T) indices: `chosen` by rank, then `extra` in raster order, then the others."""
    tokens = rank.shape[1]
    raster = torch.arange(tokens, device=rank.device) + tokens
    return torch.where(chosen, rank, torch.where(extra, raster, raster + tokens)).argsort(dim=1)


def _spread(chosen: Tensor, count: int) -> Tensor:
    """(B, T) bool: `count` of the tokens that are not chosen, evenly spaced in raster order."""
    rest = chosen.long().argsort(dim=1, stable=True)  # those not chosen come first
    number = (~chosen).sum(dim=1, keepdim=True)
    places = (2 * torch.arange(count, device=chosen.device) + 1) * number // max(2 * count, 1)
    return torch.zeros_like(chosen).scatter_(1, rest.gather(1, places), True)


def _merge(
    record: VisionRecord, attention: Tensor, keys: Tensor, selected: Tensor, order: Tensor
) -> Kept:
    """`order` (B, T) has the `selected` (B, T) tokens first."""
    features = record.features.double()
    batch, tokens, channels = features.shape
    own = selected.sum(dim=1)
    centers = order[:, : int(own.max())]
    itself = torch.eye(tokens, dtype=torch.bool, device=order.device)
    others = similarity(keys).masked_fill(itself, -torch.inf)
    others = others.gather(1, centers[:, :, None].expand(-1, -1, tokens))
    near = others.argsort(dim=2, descending=True, stable=True)[:, :, : min(NEIGHBORS, tokens - 1)]
    # Neighbor by neighbor: a product of matrices would round differently for other batches.
    merged = _take(features, centers)
    for place in range(near.shape[2]):
        neighbor = near[:, :, place]
        merged += attention.gather(1, neighbor)[:, :, None] * _take(features, neighbor)
    real = torch.arange(centers.shape[1], device=order.device) < own[:, None]
    count = own + (own < tokens)
    kept = features.new_zeros((batch, int(count.max()), channels))
    kept[:, : centers.shape[1]] = merged.masked_fill(~real[:, :, None], 0)
    rest = (attention.masked_fill(selected, 0)[:, :, None] * features).sum(dim=1)
    short = (own < tokens).nonzero()[:, 0]
    kept[short, own[short]] = rest[short]
    return Kept(
        tokens=kept.to(record.features.dtype),
        index=order.new_full(kept.shape[:2], -1),
        count=count,
        info={"selected": selected},
    )


def _take(values: Tensor, index: Tensor) -> Tensor:
    return values.gather(1, index[:, :, None].expand(-1, -1, values.shape[2]))
