"""HoloV (2025): the budget shared among runs of the raster sequence, top attention inside each.

A run's share follows its mean score, attention plus 0.09 times the variance of its tokens'
similarities within the run. That variance is rescaled to the run's mean attention before it is
averaged and so cancels: the share is per-run attention, which is why no similarity is computed
here. Output run by run, by descending attention inside each (`order="raster"` sorts). Of an image in
crops (LLaVA-NeXT) the runs are those of all crops' tokens together.

Different from upstream: a run that is allotted more than it holds passes the surplus on to the next
by share (upstream fills the gap with zero vectors); ties go to the lower index.
"""

from __future__ import annotations

import torch
from torch import Tensor

from prunesid.crops import BEFORE, BY_IMAGE, EVERY, METHOD, Crops
from prunesid.methods import Needs, register
from prunesid.methods.ragged import per_budget
from prunesid.numerics import rank_descending
from prunesid.parameters import Param
from prunesid.record import Kept, VisionRecord, keep
from prunesid.scores.cls_attention import cls_attention
from prunesid.seeding import Draws


@register(
    "holov",
    params={
        "runs": Param(16, int, minimum=1),
        "order": Param("runs", str, ("runs", "raster")),
    },
    needs=Needs(cls_attention=True),
    crops=Crops(scope=BY_IMAGE, crop_order=METHOD, unpad=BEFORE, budget_for=EVERY),
    macs=0,
)
def holov(record: VisionRecord, budget: Tensor, draws: Draws, *, runs: int, order: str) -> Kept:
    """Keep `budget` patches, shared among `runs` equal runs by their mean attention."""

    def run(images: VisionRecord, count: int) -> Kept:
        attention = cls_attention(images)
        tokens = images.num_tokens
        number = min(runs, tokens)
        # Where they do not divide T, the first runs are longer by one token.
        runs_of = torch.arange(number, device=attention.device)
        sizes = tokens // number + (runs_of < tokens % number).long()
        member = runs_of.repeat_interleave(sizes)
        means = attention.new_zeros(len(images), number).index_add_(1, member, attention) / sizes
        quota = _shares(means, sizes, count)
        inside = rank_descending(attention)
        place = (member * tokens + inside).argsort(dim=1).argsort(dim=1)
        place = place - (torch.cumsum(sizes, 0) - sizes)[member]  # by attention inside the run
        kept = place < quota[:, member]
        layout = member * tokens + place
        rank = (layout + tokens * number * (~kept)).argsort(dim=1).argsort(dim=1)
        chosen = layout if order == "runs" else None
        return keep(images, rank, torch.full_like(rank[:, 0], count), layout=chosen)

    return per_budget(record, budget, run)


def _shares(means: Tensor, sizes: Tensor, count: int) -> Tensor:
    """(B, runs) tokens per run, summing to `count`: the floor of each share, the remainder to the
    largest, what a run cannot hold to the next largest that can."""
    share = means / means.sum(dim=1, keepdim=True)
    share = torch.where(share.isfinite(), share, 1 / means.shape[1])
    wanted = (share * count).floor().long()
    largest = share.argsort(dim=1, descending=True, stable=True)
    wanted.scatter_add_(1, largest[:, :1], count - wanted.sum(dim=1, keepdim=True))
    room = sizes.expand_as(wanted) - wanted
    surplus = (-room).clamp_min(0).sum(dim=1, keepdim=True)
    space = room.clamp_min(0).gather(1, largest)
    before = space.cumsum(dim=1) - space
    extra = (surplus - before).clamp_min(0).minimum(space)
    filled = wanted.minimum(sizes.expand_as(wanted))
    return filled.scatter_add(1, largest, extra)
