"""VisPruner (ICCV 2025): important tokens by CLS attention, diverse ones by removing duplicates.

The tokens that are not important start in the order of their attention. Every pass compares the
tokens at even places with those at odd places, and removes the even ones that are most similar to
an odd one, at most 8. The next pass takes the remaining even tokens by descending similarity, then
the odd ones. The output is in raster order.

Differences from upstream: similarities are float64 on a grid (in half precision the passes amplify
rounding). Ties go to the earlier place.
"""

from __future__ import annotations

from typing import Any

from prunesid.core.costs import Visual
from prunesid.core.crops import Crops
from prunesid.core.delayed import Tensor, torch
from prunesid.core.needs import Needs
from prunesid.core.numerics import rank_descending
from prunesid.core.parameters import Param
from prunesid.core.record import Kept, VisionRecord, keep
from prunesid.core.seeding import Draws
from prunesid.methods.features import register
from prunesid.methods.features.prunesid.information import similarity
from prunesid.methods.features.prunesid.scores.cls_attention import cls_attention
from prunesid.methods.features.ragged import per_budget
from prunesid.methods.registry import Resolved, Source

PER_PASS = 8


def _complete(given: dict[str, Any]) -> dict[str, Any]:
    if given["important"] > 1:
        raise ValueError(f"important is a share of the budget in [0, 1], not {given['important']}.")
    return given


def _macs(visual: Visual, budget: int, params: Resolved) -> int:
    """Multiply-adds of the similarities of all tokens, if some tokens are chosen by them."""
    leading = int(budget * float(params["important"] or 0))
    return visual.tokens**2 * visual.width if leading < budget else 0


@register(
    "vispruner",
    params={"important": Param(0.5, float, minimum=0.0)},
    complete=_complete,
    needs=Needs(cls_attention=True),
    crops=Crops(),
    macs=_macs,
    source=Source(
        title="Beyond Text-Visual Attention: Exploiting Visual Cues for Effective Token Pruning in "
        "VLMs",
        venue="ICCV 2025",
        repository="Theia-4869/VisPruner",
        commit="aefa01adc7c7ce6334e880c88225e90cede760d1",
        golden=("vispruner",),
    ),
)
def vispruner(record: VisionRecord, budget: Tensor, draws: Draws, *, important: float) -> Kept:
    """Keep tokens by attention, and others by diversity.

    important  share of the budget that is kept by attention; 1 is FasterVLM
    """

    def run(images: VisionRecord, count: int) -> Kept:
        rank = rank_descending(cls_attention(images))
        leading = int(count * important)
        diverse = _diverse(images, rank, leading, count - leading)
        kept = (rank < leading).scatter(1, diverse, True)
        order = (rank + images.num_tokens * (~kept)).argsort(dim=1).argsort(dim=1)
        return keep(images, order, torch.full_like(rank[:, 0], count))

    return per_budget(record, budget, run)


def _diverse(record: VisionRecord, rank: Tensor, leading: int, wanted: int) -> Tensor:
    """(B, wanted) indices that survive the passes."""
    similarities = similarity(record.features)
    left = rank.argsort(dim=1)[:, leading:]
    while left.shape[1] > wanted:
        even, odd = left[:, ::2], left[:, 1::2]
        if odd.shape[1] == 0:
            return left[:, :wanted]
        rows = [own[places] for own, places in zip(similarities, odd, strict=True)]
        duplicate = torch.stack([each.amax(dim=0) for each in rows]).gather(1, even)
        removed = min(PER_PASS, left.shape[1] - wanted, even.shape[1])
        by_duplication = even.gather(1, duplicate.argsort(dim=1, descending=True, stable=True))
        left = torch.cat([by_duplication[:, removed:], odd], dim=1)
    return left
