"""Methods that drop visual tokens inside the language model, one file each, and their plans.

A late method is a function `(shape, budget, **parameters) -> Schedule`, which says after which
layers tokens are dropped and how they are chosen; `prunesid.late.driver` runs any schedule:

    @register("name", params={"keep": Param(None, int, minimum=1)})
    def name(shape, budget, *, keep): ...

`budget` is the mean, over the decoder's layers, of the visual tokens ENTERING a layer. A module of
this package is found by itself; others call `register` or name their module in the entry-point
group `prunesid.late`.
"""

from __future__ import annotations

import numbers
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from prunesid.late.schedule import Schedule, Shape, check_positions
from prunesid.parameters import Param
from prunesid.parametric import ParametricRegistry, Resolved

__all__ = [
    "Schedule",
    "Shape",
    "function_of",
    "list_late_methods",
    "modules_of",
    "needs_cls_attention",
    "parameters",
    "plan",
    "register",
    "resolve",
]


@dataclass(frozen=True)
class LateMethod:
    """A registered method: the function, its parameters, and what follows from their values."""

    run: Callable[..., Schedule]
    params: Mapping[str, Param]
    needs_cls_attention: Callable[[Resolved], bool]


_METHODS: ParametricRegistry[LateMethod] = ParametricRegistry("late method", __name__)
resolve, parameters = _METHODS.resolve, _METHODS.parameters
function_of, modules_of = _METHODS.function_of, _METHODS.modules_of


def register(
    name: str,
    *,
    params: Mapping[str, Param] | None = None,
    needs_cls_attention: Callable[[Resolved], bool] = lambda _: False,
) -> Callable[[Callable[..., Schedule]], Callable[..., Schedule]]:
    """A decorator that registers a late method; ValueError if the name is taken."""

    def add(run: Callable[..., Schedule]) -> Callable[..., Schedule]:
        _METHODS.register(name)(LateMethod(run, params or {}, needs_cls_attention))
        return run

    return add


def list_late_methods() -> list[str]:
    """The names `plan` accepts, sorted."""
    return _METHODS.names()


def needs_cls_attention(method: str, **params: object) -> bool:
    """Whether the method reads the vision tower's CLS attention with these parameters."""
    return _METHODS[method].needs_cls_attention(resolve(method, **params))


def plan(method: str, shape: Shape, budget: int | None, **params: object) -> Schedule:
    """Where and how `method` drops tokens in a decoder of `shape`.

    budget  mean over the decoder's layers of the visual tokens entering a layer; a budget of all
            tokens or more drops nothing. None where the parameters say it all (FastV's `keep`).

    ValueError on unknown names and values, on positions that the decoder rules out, and on a budget
    that its depth rules out; the message names the smallest possible one.
    """
    resolved = resolve(method, **params)
    check_positions(resolved.get("positions"), shape.axes)
    if budget is not None:
        if isinstance(budget, bool) or not isinstance(budget, numbers.Integral) or budget < 1:
            raise ValueError(f"budget must be a positive number of tokens, not {budget!r}")
        if budget >= shape.tokens:
            return Schedule()
    return _METHODS[method].run(shape, None if budget is None else int(budget), **resolved)
