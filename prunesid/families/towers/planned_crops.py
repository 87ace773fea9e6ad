"""Crops and frames on their way into CLIP towers, each by its own `methods.encoder.Plan`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from prunesid.core.crops import ENCODER, MAP, NEVER
from prunesid.core.record import Kept
from prunesid.core.rectangle import Box
from prunesid.families.towers.clip_pass import Reduced, reduce_clip
from prunesid.images.medium import SUB_CROPS, Medium, grouped
from prunesid.images.pools import in_map_order
from prunesid.images.records import ImageRecords
from prunesid.methods.encoder import Plan, Plans

# What is left of some crops and their numbers -> the tokens that go to the projector.
Finish = Callable[[Reduced, list[int]], Tensor]


@dataclass(frozen=True, eq=False)
class TowerInputs:
    """The crops of a batch before any tower has seen them.

    seen   the towers that see them, in their order: (tower, pixels (r, 3, S, S))
    media  images and clips; rows number the crops of all towers through
    share, crops  as in `ImageRecords`
    """

    seen: Sequence[tuple[Any, Tensor]]
    media: Sequence[Medium]
    share: int | None = None
    crops: Mapping[str, Any] = field(default_factory=dict)


def reduce_crops(
    batch: TowerInputs, plans: Plans, names: Sequence[str] | None, finish: Finish
) -> tuple[Kept, ImageRecords]:
    """The tokens left of every crop, and their records without features.

    Crops with one plan go through their tower as one batch.
    """
    inputs = grouped(names, batch.media)
    crops = ENCODER.under(batch.crops)
    config = batch.seen[0][0].config
    side = config.image_size // config.patch_size
    shown = [
        part for medium in batch.media for part in medium.parts((side, side), crops.unpad != NEVER)
    ]
    others: dict[str, Any] = {"share": batch.share, "crops": batch.crops}
    blank = ImageRecords.without_features(
        [(side, side)] * len(shown), torch.zeros(len(shown), 1), inputs, **others
    )
    shares = blank.patch_budgets(plans.budget).tolist()
    found: list[Kept] = []
    classes: list[Tensor] = []
    order: list[int] = []
    first = 0
    for tower, pixels in batch.seen:
        alike: dict[Plan | None, list[int]] = {}
        for row in range(first, first + len(pixels)):
            # A crop that shows nothing of a very narrow image leaves nothing.
            plan = plans.of(shares[row], shown[row]) if shares[row] else None
            alike.setdefault(plan, []).append(row)
        for plan, rows in alike.items():
            left = reduce_clip(
                tower, pixels[[row - first for row in rows]], plan or plans.of(side**2)
            )
            kept = replace(left.kept, tokens=finish(left, rows))
            kept = _numbered(kept, shown[rows[0]], side)
            found.append(
                kept if plan else kept.without(torch.ones_like(kept.count, dtype=torch.bool))
            )
            classes.append(left.cls)
            order += rows
        first += len(pixels)
    places = torch.tensor(order).argsort()
    kept = Kept.cat(found).rows(places)
    whole = ImageRecords.without_features(
        [(side, side)] * len(shown), torch.cat(classes)[places], inputs, **others
    )
    kept = whole.with_cls(kept)
    if crops.crop_order == MAP and all(SUB_CROPS in medium.layout for medium in batch.media):
        kept = in_map_order(kept, batch.media, (side, side))
    return kept, whole


def _numbered(kept: Kept, shown: Box, side: int) -> Kept:
    """Kept patches of the box `shown`, with the numbers that they have among side x side."""
    patches = shown.patches(side).to(kept.index.device)
    info = {}
    for name, own in kept.info.items():
        info[name] = own.new_full((len(kept), side**2), 0 if own.dtype == torch.bool else -1)
        if own.shape[1] == len(patches):
            info[name][:, patches] = own
    # No token of a smaller image is a patch.
    index = kept.index
    if len(patches):
        index = torch.where(index < 0, -1, patches[index.clamp(min=0, max=len(patches) - 1)])
    return Kept(kept.tokens, index, kept.count, info)
