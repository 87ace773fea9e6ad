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

from collections.abc import Callable

from prunesid.core.costs import Visual
from prunesid.core.crops import BEFORE, METHOD, PACKED, Crops
from prunesid.core.delayed import Tensor, torch
from prunesid.core.needs import Needs
from prunesid.core.numerics import GramRows, few_rows, rank_of_picks, rough_gram, row_of
from prunesid.core.parameters import Param
from prunesid.core.record import Kept, VisionRecord, keep
from prunesid.core.seeding import Draws
from prunesid.methods.features import register
from prunesid.methods.features.prunesid.information import rounded, similarity, unit
from prunesid.methods.features.ragged import largest_partial
from prunesid.methods.registry import Resolved, Source

# Tokens whose nearest neighbor is looked for at once, twice as many at each further attempt.
REFRESHED = 8


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
    if few_rows(record.projected, steps):
        images = record.projected.split(1)
        picks = torch.cat([_farthest_by_rows(image, steps) for image in images])
    else:
        picks = _farthest_by_gram(similarity(record.projected), steps)
    rank = rank_of_picks(picks, tokens)
    return keep(record, rank, budget, layout=rank if order == "selection" else None)


def _farthest_by_gram(similarities: Tensor, steps: int) -> Tensor:
    """(B, steps) tokens in the order of their selection, from (B, T, T)."""
    itself = torch.eye(similarities.shape[1], dtype=torch.bool, device=similarities.device)
    lonely = similarities.masked_fill(itself, -torch.inf).amax(dim=2)
    return _farthest(lonely, lambda pick: row_of(similarities, pick), steps)


def _farthest_by_rows(projected: Tensor, steps: int) -> Tensor:
    """The picks of `_farthest_by_gram` for one image (1, T, E), from the rows that they need."""
    tokens = unit(projected)
    rough = rough_gram(tokens)
    guess = _farthest_by_gram(rough, steps)
    rows = GramRows(tokens[0], guess[0])
    neighbor = rough[0].fill_diagonal_(-torch.inf).argmax(dim=1)
    # At least the similarity to the nearest neighbor; the lowest ones are computed in full.
    lonely = rounded(torch.linalg.vecdot(tokens[0], tokens[0, neighbor]))
    exact = torch.zeros_like(lonely, dtype=torch.bool)
    block = REFRESHED
    while not exact[lonely.argmin()]:
        least = lonely.masked_fill(exact, torch.inf).argsort(stable=True)[:block]
        others = rounded(rows.at(least)).scatter_(1, least[:, None], -torch.inf)
        lonely[least] = others.amax(dim=1)
        exact[least] = True
        block *= 2
    return _farthest(lonely[None], lambda pick: rounded(rows.at(pick[0])), steps)


def _farthest(lonely: Tensor, row: Callable[[Tensor], Tensor], steps: int) -> Tensor:
    """(B, steps) tokens in the order of their selection.

    lonely  (B, T), lowest for the first pick
    row     gives the similarities (B, T) of all tokens to the picks (B, 1)
    """
    nearest = lonely
    picks = torch.empty((len(lonely), steps), dtype=torch.int64, device=lonely.device)
    for place in range(steps):
        pick = nearest.argmin(dim=1, keepdim=True)
        picks[:, place] = pick[:, 0]
        # From now on each token's similarity to its nearest kept token; above all for a kept one.
        nearest = torch.maximum(nearest, row(pick)) if place else row(pick)
        nearest = nearest.scatter(1, pick, torch.inf)
    return picks
