"""Groupings of the tokens of an image, one file each.

A grouping is a function `(context) -> group` that returns (B, T) int64 groups in 0..K-1 per image.
It is registered with `@register("name")`, or with `@register("name", random=True)` if it draws from
`context.draws`. Plug-ins use the entry-point group `prunesid.groupings`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from prunesid.core.delayed import Tensor
from prunesid.core.registry import Registry, check_function
from prunesid.core.seeding import Draws


@dataclass(frozen=True)
class GroupingContext:
    """The inputs of a grouping.

    features    (B, T, D) raw features that feed the grouping
    components  function that returns |V|, (B, T, max K) float64 (`psca.token_components`)
    num_groups  K of each image
    draws       random numbers per image
    """

    features: Tensor
    components: Callable[[], Tensor]
    num_groups: tuple[int, ...]
    draws: Draws


@dataclass(frozen=True)
class Grouping:
    """A registered grouping; `random` says whether it draws random numbers."""

    run: Callable[[GroupingContext], Tensor]
    random: bool


GROUPINGS: Registry[Grouping] = Registry("grouping", __name__, group="prunesid.groupings")


def register(
    name: str, *, random: bool = False
) -> Callable[[Callable[[GroupingContext], Tensor]], Callable[[GroupingContext], Tensor]]:
    """A decorator that registers a grouping; ValueError if the name is taken."""
    place = GROUPINGS.register(name)

    def add(run: Callable[[GroupingContext], Tensor]) -> Callable[[GroupingContext], Tensor]:
        check_function(f"grouping {name!r}", run, "context")
        place(Grouping(run, random))
        return run

    return add
