"""DivPrune (Alvar et al., CVPR 2025): the tokens that lie farthest apart after the projector.

Farthest-point sampling by cosine distance starts with the token farthest from its nearest neighbor.
Each further step takes the token farthest from its nearest kept token. The authors' script sorts
the kept tokens since its public release, which changes its scores; `order="selection"` restores the
earlier order. In images of several crops (LLaVA-NeXT), newline embeddings are candidates, too; all
but one of them are duplicates.

Differences from upstream: distances are float64 on a grid instead of half precision. Ties go to the
lower index. If only duplicates of kept tokens are left, each is taken once (upstream may take one
token twice). The distance to the nearest kept token is updated step by step, which gives the same
tokens in O(N T). Upstream's ratio r is N = round(r T) here.
"""

from __future__ import annotations

from prunesid.core.costs import Visual
from prunesid.core.crops import BEFORE, METHOD, PACKED, Crops
from prunesid.core.delayed import Array, Tensor, np, torch
from prunesid.core.needs import Needs
from prunesid.core.numerics import (
    FLOAT32_LENGTHS,
    float32_first,
    float32_gram,
    in_numpy,
    rank_of_picks,
)
from prunesid.core.parameters import Param
from prunesid.core.record import Kept, VisionRecord, keep
from prunesid.core.seeding import Draws
from prunesid.methods.features import register
from prunesid.methods.features.prunesid.information import inverse_lengths, rounded, similarity
from prunesid.methods.features.ragged import largest_partial
from prunesid.methods.registry import Resolved, Source

# Pairs per token beyond which computing the whole Gram matrix is faster.
MANY = 4


def _macs(visual: Visual, budget: int, params: Resolved) -> int:
    """Multiply-adds of the similarities of all projected tokens; the rest only compares."""
    return visual.tokens**2 * visual.projected


@register(
    "divprune",
    params={"order": Param("raster", str, ("raster", "selection"))},
    needs=Needs(projected=True),
    crops=Crops(scope=PACKED, crop_order=METHOD, unpad=BEFORE),
    macs=_macs,
    source=Source(
        title="DivPrune: Diversity-based Visual Token Pruning for Large Multimodal Models",
        venue="CVPR 2025",
        repository="vbdi/divprune",
        commit="799e2d950aa01ba7860907f5a6d86061f885dca6",
        golden=("divprune",),
    ),
)
def divprune(record: VisionRecord, budget: Tensor, draws: Draws, *, order: str) -> Kept:
    """Keep tokens by max-min cosine distance of `record.projected`.

    A smaller budget keeps a prefix of the selection.

    order  order of the output: "raster" or "selection" (as chosen)
    """
    if record.projected is None:
        raise ValueError("divprune needs a record with projected tokens")
    tokens = record.num_tokens
    steps = largest_partial(budget, tokens)
    if float32_first(record.projected):
        images = record.projected.split(1)
        picks = torch.stack([_picks_by_bounds(image, steps) for image in images])
    else:
        picks = _picks(similarity(record.projected), steps)
    rank = rank_of_picks(picks, tokens)
    return keep(record, rank, budget, layout=rank if order == "selection" else None)


def _picks(similarities: Tensor, steps: int) -> Tensor:
    """(B, steps) tokens in the order of their selection, from (B, T, T)."""
    batch, tokens = similarities.shape[:2]
    itself = torch.eye(tokens, dtype=torch.bool, device=similarities.device)
    # Each token's similarity to its nearest neighbor at first, then to its nearest kept token.
    nearest = similarities.masked_fill(itself, -torch.inf).amax(dim=2)
    if in_numpy(similarities):
        images = zip(similarities.numpy(), nearest.numpy(), strict=True)
        return torch.stack([_picks_of_image(*image, steps) for image in images])
    picks = torch.empty((batch, steps), dtype=torch.int64, device=nearest.device)
    for place in range(steps):
        pick = nearest.argmin(dim=1, keepdim=True)
        picks[:, place] = pick[:, 0]
        to_pick = similarities.gather(2, pick[:, :, None].expand(-1, tokens, 1))[:, :, 0]
        nearest = torch.maximum(nearest, to_pick) if place else to_pick
        nearest = nearest.scatter(1, pick, torch.inf)  # never again
    return picks


def _picks_of_image(similarities: Array, nearest: Array, steps: int) -> Tensor:
    """`_picks` (steps,) of one image."""
    picks = torch.empty(steps, dtype=torch.int64)
    for place in range(steps):
        pick = int(nearest.argmin())
        picks[place] = pick
        to_pick = similarities[pick]
        nearest = np.maximum(nearest, to_pick) if place else to_pick.copy()
        nearest[pick] = np.inf
    return picks


def _picks_by_bounds(projected: Tensor, steps: int) -> Tensor:
    """`_picks` (steps,) of one image (1, T, E), with few similarities in float64.

    Similarities in float32 bound those in float64. If the bounds leave a pick open, the float64
    similarities that decide it are computed. If too many are needed, as among duplicates, all are
    computed.
    """
    tokens = projected.shape[1]
    inverse = inverse_lengths(projected)[0]
    shortest, longest = FLOAT32_LENGTHS
    if ((inverse > 1 / shortest) | (inverse > 0) & (inverse < 1 / longest)).any():
        return _picks(similarity(projected), steps)[0]
    products, error = float32_gram(projected.float())
    spread = 2 * error
    cosines = products[0].double().mul_(inverse[:, None]).mul_(inverse)
    low: Array = cosines.sub_(error).fill_diagonal_(-torch.inf).numpy()
    # The similarity to the nearest one of `others` is within `least` and `least + spread`, or
    # equal to `least` if that is `exact`.
    others = np.arange(tokens)
    least = low.max(axis=1)
    exact = np.zeros(tokens, dtype=bool)
    left = MANY * tokens
    picks = torch.empty(steps, dtype=torch.int64)
    for place in range(steps):
        pick = int(least.argmin())
        possible = least <= least[pick] + spread
        if np.count_nonzero(possible) > 1:
            unsure = np.flatnonzero(possible & ~exact)
            near = low[unsure[:, None], others]
            token, other = np.nonzero(near >= near.max(axis=1, keepdims=True) - spread)
            left -= len(token)
            if left < 0:
                return _picks(similarity(projected), steps)[0]
            pairs = _similarities(projected[0], inverse, unsure[token], others[other])
            nearest = np.full(len(unsure), -np.inf)
            np.maximum.at(nearest, token, pairs)
            least[unsure] = nearest
            exact[unsure] = True
            pick = int(least.argmin())
        picks[place] = pick
        others = picks[: place + 1].numpy()
        if place:
            exact &= low[pick] + spread < least
            least = np.maximum(least, low[pick])
        else:
            exact[:] = False
            least = low[pick].copy()
        least[pick] = np.inf
    return picks


def _similarities(tokens: Tensor, inverse: Tensor, ones: Array, others: Array) -> Array:
    """(n,) similarities of pairs of tokens (T, E); `inverse` (T,) is 1 / length of each token."""
    one, other = torch.from_numpy(ones), torch.from_numpy(others)
    pairs = torch.linalg.vecdot(tokens[one].double(), tokens[other].double())
    return rounded(pairs.mul_(inverse[one]).mul_(inverse[other])).numpy()
