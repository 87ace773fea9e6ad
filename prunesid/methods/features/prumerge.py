"""LLaVA-PruMerge and PruMerge+ (Shang et al., 2024): selected tokens, with neighbors merged in.

Tokens are selected by the CLS attention of the tower's last block (one block after the features),
with all heads as one. Each selected token adds its 32 most similar tokens by that block's keys,
selected or not, weighted by their attention. One extra token is the attention-weighted sum of all
tokens that were not selected. The output is by descending attention, with the extra token last.

Unexpected details of upstream that are reproduced: The weights do not sum to one, and the token
itself has weight one, so a token changes little. The extra token's weights are those of the
softmax, so its norm is small.

The variants select these tokens:

"fixed"     a given number: N - 1 selected tokens and the extra one
"plus"      PruMerge+ at a given number: half are selected, the others form a uniform grid (`grid`)
"adaptive"  the outliers of the attention, above Q3 + 1.5 (Q3 - Q1)
"adaptive_plus"  these outliers, and the rest of the grid 0, s, 2 s, ... below T - 1, where
            s = floor(T / selected) // 3

The adaptive variants ignore the budget, except that an image whose budget is T or more comes back
unchanged; `count` is the number of tokens that an image got. At least one token is selected, and s
is at least 1. If no token is left over, there is no extra one (upstream fails or adds zeros).

The grid of "plus" is ours by default (`grid="rest"`): half of N - 1 tokens (rounded up) are
selected, and the grid is laid over the others in raster order. So no token occurs twice, and the
count is N. `grid="all"` is upstream's: M = N // 2 tokens are selected, and the grid s // 2,
s // 2 + s, ... below T - 1, with s = T // M, is laid over all tokens. A grid token that is also
selected occurs twice and is its own neighbor. For each of these, the first token left over, in
raster order, is neither a neighbor nor in the extra token. The count is 2 M + 1. Upstream fails
unless the grid has M places; here its first M count.

Differences from upstream: attention and similarity are float64 on a grid, and sums are float64.
Ties go to the lower index.
"""

from __future__ import annotations

from prunesid.core.costs import Visual
from prunesid.core.delayed import Tensor, torch
from prunesid.core.needs import Needs
from prunesid.core.numerics import PROBABILITY_GRID, on_grid, rank_descending
from prunesid.core.parameters import Param
from prunesid.core.record import MEMBERS, Kept, VisionRecord
from prunesid.core.seeding import Draws
from prunesid.methods.features import register
from prunesid.methods.features.prunesid.information import similarity
from prunesid.methods.features.ragged import per_budget
from prunesid.methods.registry import Resolved, Source, Upstream

NEIGHBORS = 32
VARIANTS = ("fixed", "plus", "adaptive", "adaptive_plus")


def _macs(visual: Visual, budget: int, params: Resolved) -> int:
    """Multiply-adds of all keys' similarities, and of the sums for merged and extra tokens."""
    tokens, own = visual.tokens, budget - 1
    near = min(NEIGHBORS, tokens - 1)
    return visual.width * (tokens**2 + own * near + tokens - own)


def _exact(params: Resolved) -> bool:
    return params["variant"] == "fixed" or (
        params["variant"] == "plus" and params["grid"] == "rest"
    )


@register(
    "prumerge",
    params={
        "variant": Param("fixed", str, VARIANTS),
        "grid": Param("rest", str, ("rest", "all")),
    },
    needs=Needs(last_attention=True, last_keys=True),
    exact=_exact,
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
                "a token that occurs twice takes a place and removes another from the extra token",
            ),
        },
    ),
)
def prumerge(
    record: VisionRecord, budget: Tensor, draws: Draws, *, variant: str, grid: str
) -> Kept:
    """Select and merge tokens; all are new, so every index is -1.

    variant  "fixed", "plus", "adaptive" or "adaptive_plus", see the module
    grid     grid of "plus": over the "rest" (tokens that are not selected) or over "all"

    info: selected, (B, T) bool, the selected patches; members, (B, C, 33) int16, for each of the C
    tokens besides the extra one its selected patch and that patch's neighbors. For an image that
    comes back unchanged they are False and -1.
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
    """(B,) int64 number of attention values (B, T) above Q3 + 1.5 (Q3 - Q1)."""
    quarters = attention.new_tensor([0.25, 0.75])
    lower, upper = torch.quantile(attention, quarters, dim=1)
    above: Tensor = attention > (upper + 1.5 * (upper - lower))[:, None]
    return above.sum(dim=1)


def _order(rank: Tensor, chosen: Tensor, extra: Tensor) -> Tensor:
    """(B, T) indices: `chosen` by rank, then `extra` in raster order, then the others."""
    tokens = rank.shape[1]
    raster = torch.arange(tokens, device=rank.device) + tokens
    return torch.where(chosen, rank, torch.where(extra, raster, raster + tokens)).argsort(dim=1)


def _spread(chosen: Tensor, count: int) -> Tensor:
    """(B, T) bool: true for `count` of the tokens not chosen, evenly spaced in raster order."""
    rest = chosen.long().argsort(dim=1, stable=True)  # tokens that are not chosen come first
    number = (~chosen).sum(dim=1, keepdim=True)
    places = (2 * torch.arange(count, device=chosen.device) + 1) * number // max(2 * count, 1)
    return torch.zeros_like(chosen).scatter_(1, rest.gather(1, places), True)


def _over_all(rank: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`_merge`'s centers, selected, left and copies for grid="all".

    There are `count` tokens by rank (B, T), and as many of a grid over all tokens.
    """
    images, tokens = rank.shape
    step = tokens // max(count, 1)
    raster = torch.arange(tokens, device=rank.device)
    grid = raster[step // 2 : tokens - 1 : step][:count].expand(images, -1)
    top = rank.argsort(dim=1)[:, :count]
    chosen = rank < count
    again = chosen.gather(1, grid)
    selected = chosen.scatter(1, grid, True)
    # For every repetition, one of the tokens left over is lost, the first ones first.
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

    centers   (B, C) int64 tokens in the order of the output; without `copies`, an image has as many
              as are selected
    selected  (B, T) bool, the centers
    left      (B, T) bool, the tokens of which the extra token is made
    copies    (B, G) int64, each of the last G centers that occurs a second time, else -1

    Selected tokens and those left are candidates for neighbors.
    """
    features = record.tokens.double()
    batch, tokens, channels = features.shape
    copies = centers[:, :0] if copies is None else copies
    own = selected.sum(dim=1) + (copies >= 0).sum(dim=1)
    # Candidates are the tokens, then the copies; a center is no candidate of its own.
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
    # Neighbor by neighbor, since a matrix product would round differently for other batches.
    merged = _take(features, centers)
    for place in range(near.shape[2]):
        neighbor = candidates.gather(1, near[:, :, place])
        merged += attention.gather(1, neighbor)[:, :, None] * _take(features, neighbor)
    neighbors = candidates.gather(1, near.flatten(1)).view_as(near)
    real = torch.arange(centers.shape[1], device=centers.device) < own[:, None]
    members = torch.cat([centers[:, :, None], neighbors], dim=2)
    members = members.masked_fill(~real[:, :, None], -1).to(torch.int16)
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
        info={"selected": selected, MEMBERS: members},
    )


def _take(values: Tensor, index: Tensor) -> Tensor:
    return values.gather(1, index[:, :, None].expand(-1, -1, values.shape[2]))
