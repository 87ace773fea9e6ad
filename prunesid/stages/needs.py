"""What the vision tower has to leave behind for the arms of a study."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import or_

from prunesid import late, methods
from prunesid.methods import Needs
from prunesid.study.arm import Arm


def needs_of(arms: Sequence[Arm]) -> Needs:
    """The union of what the arms' methods read.

    ValueError where an arm reads the question: features belong to an image, whatever is asked, and
    the supported models have no CLIP text tower.
    """
    reading = [arm for arm in arms if not (arm.is_vanilla or arm.encodes)]
    each = {
        a.name: (late.requirements if a.is_late else methods.requirements_in_crops)(
            a.method, **a.params
        )
        for a in reading
    }
    asking = [name for name, needs in each.items() if needs.relevance]
    if asking:
        raise ValueError(
            f"arms {', '.join(asking)} read the question's relevance to each patch, which the "
            f"stored features of an image do not hold; compress a record with `relevance` instead"
        )
    return reduce(or_, each.values(), Needs())
