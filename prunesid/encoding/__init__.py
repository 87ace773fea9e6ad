"""Methods that act in or before the vision encoder, one file each, and their plans.

Such a method is a function `(shape, budget, **parameters) -> Plan`, which says how many patches each
block of the encoder sees; an adapter runs any plan (`Adapter.reduce`):

    @register("name", params={"order": Param("split", str, ("split", "raster"))})
    def name(shape, budget, *, order): ...

`budget` is the number of visual tokens that come out, at the most. An arm of such a method has an
encoder pass of its own. A module of this package is found by itself; others call `register` or name
their module in the entry-point group `prunesid.encoding`.
"""

from __future__ import annotations

import numbers
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from prunesid.encoding.plan import FAMILIES, Plan, Shape, refusal, shape_of
from prunesid.parameters import Param
from prunesid.parametric import ParametricRegistry

__all__ = [
    "FAMILIES",
    "Plan",
    "Shape",
    "function_of",
    "list_encoder_methods",
    "modules_of",
    "parameters",
    "plan",
    "refusal",
    "register",
    "resolve",
    "shape_of",
]


@dataclass(frozen=True)
class EncoderMethod:
    """A registered method: the function and its parameters."""

    run: Callable[..., Plan]
    params: Mapping[str, Param]


_METHODS: ParametricRegistry[EncoderMethod] = ParametricRegistry("encoder method", __name__)
resolve, parameters = _METHODS.resolve, _METHODS.parameters
function_of, modules_of = _METHODS.function_of, _METHODS.modules_of


def register(
    name: str, *, params: Mapping[str, Param] | None = None
) -> Callable[[Callable[..., Plan]], Callable[..., Plan]]:
    """A decorator that registers an encoder method; ValueError if the name is taken."""

    def add(run: Callable[..., Plan]) -> Callable[..., Plan]:
        _METHODS.register(name)(EncoderMethod(run, params or {}))
        return run

    return add


def list_encoder_methods() -> list[str]:
    """The names `plan` accepts, sorted."""
    return _METHODS.names()


def plan(method: str, shape: Shape, budget: int, **params: object) -> Plan:
    """How `method` leaves at most `budget` tokens of an image in an encoder of `shape`.

    A budget of all patches or more changes nothing. ValueError on unknown names and values, and on
    a budget that the encoder's depth rules out; the message names the smallest possible one.
    """
    resolved = resolve(method, **params)
    if isinstance(budget, bool) or not isinstance(budget, numbers.Integral) or budget < 1:
        raise ValueError(f"budget must be a positive number of tokens, not {budget!r}")
    if budget >= shape.tokens:
        return Plan(shape.side, (0,) * shape.read)
    return _METHODS[method].run(shape, int(budget), **resolved)
