"""HoloV (Zou et al., NeurIPS 2025): top attention in each run of the raster sequence.

The budget is shared among runs of consecutive tokens. A run's share follows its mean score, which
is attention plus 0.09 times the variance of its tokens' similarities within the run. That variance
is rescaled to the run's mean attention before it is averaged, and so it cancels. The share follows
attention alone, and no similarity is computed here. Shares are rounded down, and the largest of
them get one more token each until the budget is spent. The output goes run by run, by descending
attention inside each (`order="raster"` sorts it). In images of several crops (LLaVA-NeXT) the runs
divide the tokens of all crops together.

A run that is allotted all of its tokens or more is sent whole, in raster order. The surplus goes to
the runs of next largest share. Upstream sends rows of zeros at the end instead (`surplus="zeros"`).

Upstream has 16 runs on LLaVA and int(1024 / N) on Qwen (`runs`). Differences from upstream: ties go
to the lower index.
"""

from __future__ import annotations

from prunesid.core.crops import BEFORE, BY_IMAGE, EVERY, METHOD, Crops
from prunesid.core.delayed import Tensor, torch
from prunesid.core.needs import Needs
from prunesid.core.numerics import rank_ascending, rank_descending
from prunesid.core.parameters import Param
from prunesid.core.record import Kept, VisionRecord, keep
from prunesid.core.seeding import Draws
from prunesid.methods.features import register
from prunesid.methods.features.prunesid.scores.cls_attention import cls_attention
from prunesid.methods.features.ragged import per_budget
from prunesid.methods.registry import Source, Upstream


@register(
    "holov",
    params={
        "runs": Param(16, int, minimum=1),
        "surplus": Param("redistribute", str, ("redistribute", "zeros")),
        "order": Param("runs", str, ("runs", "raster")),
    },
    needs=Needs(cls_attention=True),
    crops=Crops(scope=BY_IMAGE, crop_order=METHOD, unpad=BEFORE, budget_for=EVERY),
    macs=0,
    source=Source(
        title='Don\'t Just Chase "Highlighted Tokens" in MLLMs: Revisiting Visual Holistic Context '
        "Retention",
        venue="NeurIPS 2025",
        repository="obananas/HoloV",
        commit="1d2e65e961e698ff0e7d5bb4625489177dd9deba",
        golden=("holov",),
        upstream={
            "surplus": Upstream(
                "zeros",
                "a row of zeros takes a place and tells the language model nothing",
            ),
        },
    ),
)
def holov(
    record: VisionRecord, budget: Tensor, draws: Draws, *, runs: int, surplus: str, order: str
) -> Kept:
    """Keep `budget` patches, shared among runs by their mean attention.

    runs     number of runs of equal size; if it does not divide T, the first hold one more token
    surplus  use of the tokens that a run is allotted beyond its size: "redistribute" (to the runs
             of next largest share) or "zeros" (rows of zeros after all others, index -1)
    order    order of the output: "runs" (by attention inside each) or "raster"
    """

    def run(images: VisionRecord, count: int) -> Kept:
        attention = cls_attention(images)
        tokens = images.num_tokens
        number = min(runs, tokens)
        sizes = torch.full((number,), tokens // number, device=attention.device)
        sizes[: tokens % number] += 1
        raster = torch.arange(tokens, device=attention.device)
        member = torch.arange(number, device=attention.device).repeat_interleave(sizes)
        means = attention.new_zeros(len(images), number).index_add_(1, member, attention) / sizes
        quota = _shares(means, count)
        if surplus == "redistribute":
            quota = _held(quota, sizes, means)
        start = sizes.cumsum(0) - sizes
        inside = rank_ascending(member * tokens + rank_descending(attention)) - start[member]
        kept = inside < quota[:, member]
        whole = (quota >= sizes)[:, member]
        layout = member * tokens + torch.where(whole, raster - start[member], inside)
        rank = rank_ascending(layout + tokens * number * (~kept))
        chosen = layout if order == "runs" else None
        found = keep(images, rank, kept.sum(dim=1), layout=chosen)
        return found if surplus == "redistribute" else _padded(found, count)

    return per_budget(record, budget, run)


def _shares(means: Tensor, count: int) -> Tensor:
    """(B, runs) tokens per run, `count` in all: floors of shares, and one more for the largest."""
    share = means / means.sum(dim=1, keepdim=True)
    share = torch.where(share.isfinite(), share, 1 / means.shape[1])
    wanted = (share * count).floor().long()
    return wanted + (rank_descending(share) < count - wanted.sum(dim=1, keepdim=True)).long()


def _held(wanted: Tensor, sizes: Tensor, means: Tensor) -> Tensor:
    """`wanted` (B, runs), but what exceeds a run's size (runs) goes to the runs of largest mean."""
    room = sizes - wanted
    largest = means.argsort(dim=1, descending=True, stable=True)
    surplus = (-room).clamp_min(0).sum(dim=1, keepdim=True)
    space = room.clamp_min(0).gather(1, largest)
    before = space.cumsum(dim=1) - space
    extra = (surplus - before).clamp_min(0).minimum(space)
    return wanted.minimum(sizes).scatter_add(1, largest, extra)


def _padded(kept: Kept, count: int) -> Kept:
    """`kept`, with rows of zeros up to `count` tokens."""
    missing = count - kept.tokens.shape[1]
    return Kept(
        tokens=torch.nn.functional.pad(kept.tokens, (0, 0, 0, missing)),
        index=torch.nn.functional.pad(kept.index, (0, missing), value=-1),
        count=torch.full_like(kept.count, count),
        info=kept.info,
    )
