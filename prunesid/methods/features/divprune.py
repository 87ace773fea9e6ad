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
from prunesid.core.delayed import Tensor, torch
from prunesid.core.needs import Needs
from prunesid.core.numerics import rank_of_picks
from prunesid.core.parameters import Param
from prunesid.core.record import Kept, VisionRecord, keep
from prunesid.core.seeding import Draws
from prunesid.methods.features import register
from prunesid.methods.features.prunesid.information import similarity
from prunesid.methods.features.ragged import largest_partial
from prunesid.methods.registry import Resolved, Source


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
    similarities = similarity(record.projected)
    batch, tokens = similarities.shape[:2]
    itself = torch.eye(tokens, dtype=torch.bool, device=budget.device)
    # Each token's similarity to its nearest neighbor at first, then to its nearest kept token.
    nearest = similarities.masked_fill(itself, -torch.inf).amax(dim=2)
    taken = torch.zeros_like(nearest, dtype=torch.bool)
    picks = budget.new_empty((batch, largest_partial(budget, tokens)))
    for place in range(picks.shape[1]):
        pick = nearest.masked_fill(taken, torch.inf).argmin(dim=1, keepdim=True)
        picks[:, place] = pick[:, 0]
        taken.scatter_(1, pick, True)
        to_pick = similarities.gather(2, pick[:, :, None].expand(batch, tokens, 1))[:, :, 0]
        nearest = torch.maximum(nearest, to_pick) if place else to_pick
    rank = rank_of_picks(picks, tokens)
    return keep(record, rank, budget, layout=rank if order == "selection" else None)
