"""The cost of an arm's own encoder pass, image by image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from prunesid.core.crops import ENCODER, NEVER
from prunesid.core.delayed import torch
from prunesid.images.records import ImageRecords
from prunesid.methods import encoder as encoding
from prunesid.study.config.arm import Arm
from prunesid.study.files.features import Head


@dataclass(frozen=True)
class Pass:
    """Multiply-adds of the encoder, and of finding and merging pairs, for all crops of an input."""

    encoder: int
    choice: int


def passes_of(arm: Arm, head: Head) -> Mapping[str, Pass] | None:
    """{input: its pass} for a shard's inputs; None for another arm, or without a formula."""
    sizes = head.model_sizes
    tower, shape = sizes.encoder, sizes.encoding
    if not arm.encodes or tower is None or shape is None:
        return None
    plans = encoding.plans(arm.method, shape, arm.budget or 0, **arm.params)
    if not head.inputs:
        return {}
    rows = torch.zeros(len(head.sizes), 1)
    blank = ImageRecords.without_features(head.row_grids, rows, head.inputs, head.share, head.crops)
    unpad = ENCODER.under(head.crops).unpad != NEVER
    shares = blank.patch_budgets(plans.budget).tolist()
    found = {}
    for name, media in head.inputs.items():
        own = [
            # A crop that leaves nothing has the ordinary pass.
            plans.of(shares[row] or head.sizes[row], part if shares[row] else None)
            for medium in media
            for row, part in zip(
                medium.rows, medium.parts(head.row_grids[medium.rows[0]], unpad), strict=True
            )
        ]
        found[name] = Pass(
            sum(plan.encoder_macs(tower) for plan in own),
            sum(plan.choice_macs(tower) for plan in own),
        )
    return found
