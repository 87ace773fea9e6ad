"""Scores that rank the tokens of a group, one file each.

A score is a function `(record, components) -> (B, T) float64`, registered with `@register("name")`.
Tokens of higher score are kept first. `components` is a function that returns |V|, (B, T, K).
Scores are rounded to a grid (see `numerics`), so that equal tokens tie. Plug-ins use the
entry-point group `prunesid.scores`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from prunesid.core.delayed import Tensor
from prunesid.core.record import VisionRecord
from prunesid.core.registry import Registry, check_function

Run = Callable[[VisionRecord, Callable[[], Tensor]], Tensor]
Function = TypeVar("Function", bound=Run)


@dataclass(frozen=True)
class Score:
    """A registered score; `cls_attention` says whether it reads `record.cls_attention`."""

    run: Run
    cls_attention: bool


SCORES: Registry[Score] = Registry("score", __name__, group="prunesid.scores")


def register(name: str, *, cls_attention: bool = False) -> Callable[[Function], Function]:
    """A decorator that registers a score; ValueError if the name is taken."""
    place = SCORES.register(name)

    def add(run: Function) -> Function:
        check_function(f"score {name!r}", run, "record", "components")
        place(Score(run, cls_attention))
        return run

    return add
