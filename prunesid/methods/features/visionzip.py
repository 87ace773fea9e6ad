"""VisionZip (Yang et al., CVPR 2025): dominant tokens by CLS attention, the rest merged by keys.

Output order: CLS, the dominant patches in raster order, then the contextual tokens.

Unexpected details of upstream that are reproduced: The CLS token takes one of the dominant places.
The targets of the merge are spread evenly over the positions of the rest, not chosen by a score. A
contextual token is its target *plus* the mean of its members, so its norm is about twice a patch's
(`merge="mean"` takes the mean over target and members instead).

Differences from upstream: ties of attention or similarity go to the lower index.
"""

from __future__ import annotations

from prunesid.core.costs import Visual
from prunesid.core.crops import Crops
from prunesid.core.delayed import Tensor, torch
from prunesid.core.needs import Needs
from prunesid.core.numerics import COSINE_GRID, on_grid, rank_descending
from prunesid.core.parameters import Param
from prunesid.core.record import Kept, VisionRecord
from prunesid.core.seeding import Draws
from prunesid.methods.features import register
from prunesid.methods.features.prunesid.scores.cls_attention import cls_attention
from prunesid.methods.features.ragged import per_budget
from prunesid.methods.registry import Resolved, Source

# The authors keep 54 dominant and 10 contextual tokens of 64 (108 and 20, 162 and 30).
SHARE = (10, 64)


def split_budget(budget: int, contextual: int | None) -> tuple[int, int]:
    """(dominant including CLS, contextual) tokens of a budget; ValueError if none is dominant."""
    merged = budget * SHARE[0] // SHARE[1] if contextual is None else contextual
    if merged >= budget:
        raise ValueError(f"contextual: {merged} of {budget} tokens leave no dominant token")
    return budget - merged, merged


def _macs(visual: Visual, budget: int, params: Resolved) -> int:
    """Multiply-adds of comparing the keys of members and targets, and of summing the members."""
    given = params["contextual"]
    dominant, merged = split_budget(budget, None if given is None else int(given))
    members = max(0, visual.tokens - (dominant - 1) - merged)
    return members * (merged * visual.head_dim + (visual.width if merged else 0))


@register(
    "visionzip",
    params={
        "contextual": Param(None, int, minimum=0),
        "merge": Param("target_plus_mean", str, ("target_plus_mean", "mean")),
    },
    needs=Needs(cls_attention=True, cls=True, keys=True),
    crops=Crops(),
    macs=_macs,
    source=Source(
        title="VisionZip: Longer is Better but Not Necessary in Vision Language Models",
        venue="CVPR 2025",
        repository="dvlab-research/VisionZip",
        commit="3151f6df4fca36a4cd1c985e5956e725b1f9ad02",
        golden=("visionzip",),
    ),
)
def visionzip(
    record: VisionRecord, budget: Tensor, draws: Draws, *, contextual: int | None, merge: str
) -> Kept:
    """Keep `budget` tokens: CLS, dominant patches and contextual tokens.

    contextual  number of merged tokens, by default 10 of every 64
    merge       formula of a contextual token: "target_plus_mean" (upstream) or "mean"

    The index is -1 for CLS and for contextual tokens. info: selected, (B, T) bool, the patches that
    are targets of the merge; merged_into, (B, T) int16, the number of the contextual token that a
    patch goes into, -1 for none.
    """

    def run(images: VisionRecord, count: int) -> Kept:
        dominant, merged = split_budget(count, contextual)
        return _zip(images, dominant - 1, merged, merge)

    return per_budget(record, budget, run)


def _zip(record: VisionRecord, dominant: int, merged: int, merge: str) -> Kept:
    batch, tokens = record.features.shape[:2]
    rank = rank_descending(cls_attention(record))
    chosen = rank < dominant
    raster = torch.arange(tokens, device=rank.device).expand(batch, tokens)
    order = (raster + tokens * (~chosen)).argsort(dim=1)  # dominant in raster order, then the rest
    top, rest = order[:, :dominant], order[:, dominant:]
    features = record.features.double()
    parts = [_cls(record).double(), _take(features, top)]
    targets, members = _targets(rest, merged)
    into = torch.full_like(raster, -1, dtype=torch.int16)
    if merged:
        contextual, owner = _contextual(record, features, rest, targets, members, merge)
        parts.append(contextual)
        own = torch.arange(merged, device=rank.device).expand(batch, -1)
        into = into.scatter(1, rest[:, targets], own.to(into.dtype))
        into = into.scatter(1, rest[:, members], owner.to(into.dtype))
    kept = torch.cat(parts, dim=1)
    index = torch.cat([top.new_full((batch, 1), -1), top, top.new_full((batch, merged), -1)], dim=1)
    return Kept(
        tokens=kept.to(record.features.dtype),
        index=index,
        count=torch.full((batch,), kept.shape[1], dtype=torch.long, device=rank.device),
        info={
            "selected": torch.zeros_like(chosen).scatter_(1, rest[:, targets], True),
            "merged_into": into,
        },
    )


def _targets(rest: Tensor, merged: int) -> tuple[Tensor, Tensor]:
    """(merged,) of the R places of `rest`, evenly spread, and the (R - merged,) others."""
    target = torch.zeros(rest.shape[1], dtype=torch.bool, device=rest.device)
    step = max(1, rest.shape[1] // max(1, merged))
    target[: merged * step : step] = True
    # Sorted, and not indexed by `target`: that would wait for the device.
    others, chosen = target.byte().argsort(stable=True).split([len(target) - merged, merged])
    return chosen, others


def _contextual(
    record: VisionRecord,
    features: Tensor,
    rest: Tensor,
    targets: Tensor,
    others: Tensor,
    merge: str,
) -> tuple[Tensor, Tensor]:
    """(B, merged, D) contextual tokens, and (B, members) number of the one that each member joins.

    A member joins the contextual token of the target with the most similar key.
    """
    if record.keys is None:
        raise ValueError("visionzip needs a record with keys")
    key = _take(record.keys.double().mean(dim=1), rest)
    unit = key / key.norm(dim=2, keepdim=True).clamp_min(torch.finfo(key.dtype).tiny)
    similarity = on_grid(unit[:, others] @ unit[:, targets].transpose(1, 2), COSINE_GRID)
    owner = similarity.argmax(dim=2)  # (B, members)
    values = _take(features, rest)
    centers, members = values[:, targets], values[:, others]
    belongs = torch.nn.functional.one_hot(owner, centers.shape[1]).transpose(1, 2).double()
    number = belongs.sum(dim=2, keepdim=True)
    if merge == "mean":
        return (centers + belongs @ members) / (1 + number), owner
    return centers + belongs @ members / number.clamp_min(1), owner


def _cls(record: VisionRecord) -> Tensor:
    if record.cls is None:
        raise ValueError("visionzip needs a record with a CLS token")
    return record.cls[:, None]


def _take(values: Tensor, index: Tensor) -> Tensor:
    return values.gather(1, index[:, :, None].expand(-1, -1, values.shape[2]))
