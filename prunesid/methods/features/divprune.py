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
from prunesid.core.numerics import float32_first, float32_gram, in_numpy, rank_of_picks
from prunesid.core.parameters import Param
from prunesid.core.record import Kept, VisionRecord, keep
from prunesid.core.seeding import Draws
from prunesid.methods.features import register
from prunesid.methods.features.prunesid.information import rounded, similarity, unit
from prunesid.methods.features.ragged import largest_partial
from prunesid.methods.registry import Resolved, Source

# Pairs of tokens, for each token, beyond which a whole Gram matrix is faster.
MANY = 4
# Tokens that are brought to unit length together.
PART = 144


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

    Similarities in float32 bound those in float64. Where bounds leave a pick open, the similarities
    that decide it are computed. If these become many, as among duplicates, all are.
    """
    tokens = projected.shape[1]
    roughly, error = float32_gram(_float32_unit(projected))
    spread = 2 * error
    low: Array = roughly[0].double().sub_(error).fill_diagonal_(-torch.inf).numpy()
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
            least[unsure] = _nearest(projected, unsure, token, others[other])
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


def _nearest(projected: Tensor, tokens: Array, token: Array, other: Array) -> Array:
    """Largest similarity of each of some `tokens` to the `other` ones that its pairs name.

    token  the place, among `tokens`, of each pair's first token
    """
    both = torch.from_numpy(np.concatenate([tokens[token], other]))
    pairs = torch.linalg.vecdot(*unit(projected[:, both]).chunk(2, dim=1))[0]
    nearest = np.full(len(tokens), -np.inf)
    np.maximum.at(nearest, token, rounded(pairs).numpy())
    return nearest


def _float32_unit(projected: Tensor) -> Tensor:
    """`unit` in float32, each entry rounded once, of tokens that are not float64."""
    parts = []
    for part in projected.split(PART, dim=1):  # since large temporary memory is slow
        wide = part.double()
        norm = torch.linalg.vector_norm(wide, dim=2, keepdim=True)
        parts.append(wide.div_(norm.clamp_(min=torch.finfo(wide.dtype).tiny)).float())
    return torch.cat(parts, dim=1)
