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
"plus"      PruMerge+ at a given number: half are selected, the others are a uniform grid, see `grid`
"adaptive", "adaptive_plus"   as many as the attention has outliers, above Q3 + 1.5 (Q3 - Q1), and
            for "plus" the rest of the grid 0, s, 2 s, ... below T - 1, s = floor(T / selected) // 3.
            The budget does not count: `count` is what the image got, and only an image whose budget
            is T or more comes back unchanged. At least one is selected, s is at least 1, and where
            no token is left over there is no extra one (upstream fails or adds zeros)

The grid of "plus" is ours by default, `grid="rest"`: of N - 1 tokens half (rounded up) are selected, and
the grid is laid over the others in raster order, so that no token is there twice and the count is N.
`grid="all"` is upstream's: M = N // 2 are selected, and s // 2, s // 2 + s, ... below T - 1 for s = T // M
is laid over all tokens. One that is selected as well comes twice, is its own neighbor, and for each such
one the first of the tokens left over, in raster order, is neither a neighbor nor in the extra token. The
count is 2 M + 1. Upstream fails unless the grid has M places; here its first M count.

Different from upstream: attention and similarity are float64 on a grid, and ties go to the lower
index; sums are float64.
"""

from __future__ import annotations

import torch
from torch import Tensor

from prunesid.core.costs import Visual
from prunesid.core.numerics import PROBABILITY_GRID, on_grid, rank_descending
from prunesid.core.parameters import Param
from prunesid.core.parametric import Resolved, Source, Upstream
from prunesid.core.record import Kept, VisionRecord
from prunesid.core.seeding import Draws
from prunesid.methods.features import Needs, register
from prunesid.methods.features.prunesid.information import similarity
from prunesid.methods.features.ragged import per_budget

NEIGHBORS = 32
VARIANTS = ("fixed", "plus", "adaptive", "adaptive_plus")


def _macs(visual: Visual, budget: int, params: Resolved) -> int:
    """Similarities of all keys, the neighbors in each token, and the others in the extra one."""
    tokens, own = visual.tokens, budget - 1
    near = min(NEIGHBORS, tokens - 1)
    return visual.width * (tokens**2 + own * near + tokens - own)


@register(
    "prumerge",
    params={
        "variant": Param("fixed", str, VARIANTS),
        "grid": Param("rest", str, ("rest", "all")),
    },
    needs=Needs(last_attention=True, last_keys=True),
    macs=_macs,
    source=Source(
        title="LLaVA-PruMerge: Adaptive Token Reduction for Efficient Large Multimodal Models",
        venue="2024",
        repository="42Shawn/LLaVA-PruMerge",
        commit="097c04116a58465e4bcb58cec44a94018a68ff1a",
        golden=("prumerge",),
        upstream={
            "grid": Upstream(
                "all",
                "a token that is there twice takes a place and removes another from the extra token",
            ),
        },
    ),
)
def prumerge(
    record: VisionRecord, budget: Tensor, draws: Draws, *, variant: str, grid: str
) -> Kept:
    """Select and merge; every token is made, so every index is -1.

    variant  "fixed", "plus", "adaptive" or "adaptive_plus", see above
    grid     of "plus": "rest" (over what is not selected) or "all"
    info: selected, (B, T) bool, the patches that the tokens but the last were made from; all False
    for an image that comes back unchanged.
    """

    def run(images: VisionRecord, count: int) -> Kept:
        if images.last_attention is None or images.last_keys is None:
            raise ValueError("prumerge needs a record with last_attention and last_keys")
        attention = on_grid(images.last_attention.double(), PROBABILITY_GRID)
        rank = rank_descending(attention)
        if variant == "plus" and grid == "all":
            return _merge(images, attention, images.last_keys, *_over_all(rank, count // 2))
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
        selected = chosen | extra
        centers = _order(rank, chosen, extra)[:, : int(selected.sum(dim=1).max())]
        return _merge(images, attention, images.last_keys, centers, selected, ~selected)

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


def _over_all(rank: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`_merge`'s centers, selected, left and copies: `count` tokens by rank (B, T), and as many of a
    grid over all tokens."""
    images, tokens = rank.shape
    step = tokens // max(count, 1)
    raster = torch.arange(tokens, device=rank.device)
    grid = raster[step // 2 : tokens - 1 : step][:count].expand(images, -1)
    top = rank.argsort(dim=1)[:, :count]
    chosen = rank < count
    again = chosen.gather(1, grid)
    selected = chosen.scatter(1, grid, True)
    # As many of those left over as there are repetitions are lost, the first ones.
    left = ~selected & ((~selected).cumsum(dim=1) > again.sum(dim=1, keepdim=True))
    return torch.cat([top, grid], dim=1), selected, left, torch.where(again, grid, -1)


def _merge(
    record: VisionRecord,
    attention: Tensor,
    keys: Tensor,
    centers: Tensor,
    selected: Tensor,
    left: Tensor,
    copies: Tensor | None = None,
) -> Kept:
    """One token per center and the extra one.

    centers         (B, C) int64 tokens in the order of the output; an image without `copies` has as
                    many as are selected
    selected, left  (B, T) bool: the centers, and what the extra token is made of. Both are neighbors
    copies          (B, G) int64: the last G centers where they are there a second time, else -1
    """
    features = record.tokens.double()
    batch, tokens, channels = features.shape
    copies = centers[:, :0] if copies is None else copies
    own = selected.sum(dim=1) + (copies >= 0).sum(dim=1)
    # Candidates are the tokens, and after them the copies; a center is none of its own.
    places = torch.arange(copies.shape[1], device=centers.device) + tokens
    single = centers.shape[1] - copies.shape[1]
    itself = torch.cat(
        [centers[:, :single], torch.where(copies >= 0, places, centers[:, single:])], dim=1
    )
    raster = torch.arange(tokens, device=centers.device).expand(batch, -1)
    candidates = torch.cat([raster, copies.clamp(min=0)], dim=1)
    usable = torch.cat([selected | left, copies >= 0], dim=1)
    others = similarity(keys).gather(1, centers[:, :, None].expand(-1, -1, tokens))
    others = others.gather(2, candidates[:, None].expand(-1, centers.shape[1], -1))
    others = others.masked_fill(~usable[:, None], -torch.inf)
    others = others.scatter(2, itself[:, :, None], -torch.inf)
    near = others.argsort(dim=2, descending=True, stable=True)[:, :, : min(NEIGHBORS, tokens - 1)]
    # Neighbor by neighbor: a product of matrices would round differently for other batches.
    merged = _take(features, centers)
    for place in range(near.shape[2]):
        neighbor = candidates.gather(1, near[:, :, place])
        merged += attention.gather(1, neighbor)[:, :, None] * _take(features, neighbor)
    real = torch.arange(centers.shape[1], device=centers.device) < own[:, None]
    count = own + left.any(dim=1)
    kept = features.new_zeros((batch, int(count.max()), channels))
    kept[:, : centers.shape[1]] = merged.masked_fill(~real[:, :, None], 0)
    rest = (attention.masked_fill(~left, 0)[:, :, None] * features).sum(dim=1)
    short = left.any(dim=1).nonzero()[:, 0]
    kept[short, own[short]] = rest[short]
    return Kept(
        tokens=kept.to(record.features.dtype),
        index=centers.new_full(kept.shape[:2], -1),
        count=count,
        info={"selected": selected},
    )


def _take(values: Tensor, index: Tensor) -> Tensor:
    return values.gather(1, index[:, :, None].expand(-1, -1, values.shape[2]))
