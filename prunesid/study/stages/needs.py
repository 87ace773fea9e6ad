"""The fields that the vision tower has to keep for the arms of a study."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING

from prunesid.core.needs import Needs
from prunesid.images.relevance import reading
from prunesid.methods.features import requirements_in_crops
from prunesid.methods.registry import requirements

if TYPE_CHECKING:
    from prunesid.study.config.arm import Arm


def needs_of(arms: Sequence[Arm]) -> Needs:
    """The union of what the arms' methods read."""
    each = (
        (requirements if arm.is_late else requirements_in_crops)(arm.method, **arm.params)
        for arm in arms
        if not (arm.is_vanilla or arm.encodes)
    )
    return reduce(or_, each, Needs())


def needs_text(needs: Needs, text_tower: object) -> str:
    """The needs that features are made for, as text: features of other needs are made again.

    text_tower  the option that names CLIP's text tower; None without one
    """
    read = reading(needs, text_tower)
    return f"{read} by {text_tower}" if read.joint else str(read)
