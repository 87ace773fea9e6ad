"""Crops and frames on their way into CLIP towers, each by a plan of its own (`prunesid.encoding`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from prunesid.encoding import Plan, Plans
from prunesid.models.clip_pass import Reduced, reduce_clip
from prunesid.outline import outline
from prunesid.record import Kept
from prunesid.records import Medium, Records, grouped

# What is left of some crops and their numbers -> the tokens that go to the projector.
Finish = Callable[[Reduced, list[int]], Tensor]


@dataclass(frozen=True, eq=False)
class Views:
    """The crops of a batch before any tower has seen them.

    seen   what sees them, in their order: (tower, pixels (r, 3, S, S))
    media  what they are of; rows number the crops of all towers through
    share  as in `Records`
    """

    seen: Sequence[tuple[Any, Tensor]]
    media: Sequence[Medium]
    share: int | None = None


def reduce_views(
    views: Views, plans: Plans, names: Sequence[str] | None, finish: Finish
) -> tuple[Kept, Records]:
    """What is left of every crop, and the outline of their records.

    Crops with one plan go through their tower as one batch.
    """
    owners = names or [str(number) for number in range(len(views.media))]
    inputs = grouped(owners, views.media)
    parts = {
        row: part
        for medium in views.media for row, part in zip(medium.rows, medium.parts, strict=True)
    }  # fmt: skip
    shown = [parts[row] for row in range(len(parts))]
    config = views.seen[0][0].config
    side = config.image_size // config.patch_size
    grids = [(side, side) if box is None else box.grid for box in shown]
    blank = outline(grids, torch.zeros(len(shown), 1), inputs, views.share)
    shares = blank.patch_budgets(plans.budget).tolist()
    found: list[Kept] = []
    classes: list[Tensor] = []
    order: list[int] = []
    first = 0
    for tower, pixels in views.seen:
        alike: dict[Plan, list[int]] = {}
        for row in range(first, first + len(pixels)):
            alike.setdefault(plans.of(shares[row], shown[row]), []).append(row)
        for plan, rows in alike.items():
            left = reduce_clip(tower, pixels[[row - first for row in rows]], plan)
            found.append(replace(left.kept, tokens=finish(left, rows)))
            classes.append(left.cls)
            order += rows
        first += len(pixels)
    places = torch.tensor(order).argsort()
    kept = Kept.cat(found).rows(places)
    whole = outline(grids, torch.cat(classes)[places], inputs, views.share)
    return whole.with_cls(kept), whole
