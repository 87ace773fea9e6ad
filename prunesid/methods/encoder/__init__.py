"""Methods that act in or before the vision encoder, one file each, and their plans.

Such a method is a function `(shape, budget, **parameters) -> Plan`, which says how many patches each
block of the encoder sees; an adapter runs any plan (`Adapter.reduce`):

    @register("name", params={"order": Param("split", str, ("split", "raster"))})
    def name(shape, budget, *, order): ...

`budget` is the number of visual tokens that come out of one crop, at the most; `shape.shown` are the
patches that they come from, which the plan hands on. An image in several crops, and a clip, have a plan
for each (`plans`). A method that does nothing but shrink the image may also register `grid`, a function
of the rows and columns that an image has and of the budget, which gives those of the smaller image; it
then runs on encoders that take images of any size.

An arm of such a method has an encoder pass of its own. A module of this package is found by itself;
others call `register` or name their module in the entry-point group `prunesid.methods.encoder`.
"""

from __future__ import annotations

import numbers
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from prunesid.core.costs import EncoderShape
from prunesid.core.parameters import Param
from prunesid.core.parametric import ParametricRegistry, Resolved, Source
from prunesid.core.rectangle import Box
from prunesid.methods.encoder.plan import Plan

__all__ = [
    "Grid",
    "Plan",
    "Plans",
    "function_of",
    "list_encoder_methods",
    "modules_of",
    "parameters",
    "plan",
    "plans",
    "register",
    "resolve",
    "shrinks",
    "source_of",
]

Grid = tuple[int, int]


@dataclass(frozen=True)
class EncoderMethod:
    """A registered method: the function, its parameters, and the grid of its smaller image."""

    run: Callable[..., Plan]
    params: Mapping[str, Param]
    grid: Callable[..., Grid] | None
    source: Source | None = None


_METHODS: ParametricRegistry[EncoderMethod] = ParametricRegistry("encoder method", __name__)
resolve, parameters = _METHODS.resolve, _METHODS.parameters
function_of, modules_of = _METHODS.function_of, _METHODS.modules_of
source_of = _METHODS.source_of


def register(
    name: str,
    *,
    params: Mapping[str, Param] | None = None,
    grid: Callable[..., Grid] | None = None,
    source: Source | None = None,
) -> Callable[[Callable[..., Plan]], Callable[..., Plan]]:
    """A decorator that registers an encoder method; ValueError if the name is taken.

    source  the paper and the authors' code; None for a baseline
    """

    def add(run: Callable[..., Plan]) -> Callable[..., Plan]:
        _METHODS.register(name)(EncoderMethod(run, params or {}, grid, source))
        return run

    return add


def list_encoder_methods() -> list[str]:
    """The names `plan` accepts, sorted."""
    return _METHODS.names()


def shrinks(method: str) -> bool:
    """Whether the method does nothing but shrink the image, which encoders of any size allow."""
    return _METHODS[method].grid is not None


def plan(method: str, shape: EncoderShape, budget: int, **params: object) -> Plan:
    """How `method` leaves at most `budget` tokens of a crop in an encoder of `shape`.

    A budget of all patches or more changes nothing. ValueError on unknown names and values, and on
    a budget that the encoder's depth rules out; the message names the smallest possible one.
    """
    resolved = _checked(method, budget, params)
    if budget >= shape.tokens:
        return Plan(shape.side, (0,) * shape.read, shown=shape.shown)
    return _METHODS[method].run(shape, int(budget), **resolved)


def _checked(method: str, budget: int, params: Mapping[str, object]) -> Resolved:
    resolved = resolve(method, **params)
    if isinstance(budget, bool) or not isinstance(budget, numbers.Integral) or budget < 1:
        raise ValueError(f"budget must be a positive number of tokens, not {budget!r}")
    return resolved


@dataclass(frozen=True)
class Plans:
    """What a method makes of the crops of an image, or of the frames of a clip.

    budget  tokens of the whole image or clip, which `Records.patch_budgets` shares among its crops
    shape   of the encoder; None where it takes images of any size
    """

    method: str
    budget: int
    params: Resolved
    shape: EncoderShape | None

    def of(self, share: int, shown: Box | None = None) -> Plan:
        """The plan of a crop that gets `share` tokens; `shown` as `Shape` has it.

        ValueError where images have any size.
        """
        if self.shape is None:
            raise ValueError(f"{self.method} has no plan for images of any size")
        return plan(self.method, replace(self.shape, shown=shown), share, **self.params)

    def grid(self, whole: Grid, share: int) -> Grid:
        """Rows and columns of tokens, `share` at the most, of an image that has as many as `whole`.

        ValueError where the method does more than shrink the image.
        """
        smaller = _METHODS[self.method].grid
        if smaller is None:
            raise ValueError(f"{self.method} does more than shrink the image")
        return whole if share >= whole[0] * whole[1] else smaller(whole, share, **self.params)


def plans(
    method: str, shape: EncoderShape | None, budget: int, *, crops: int = 1, **params: object
) -> Plans:
    """`plan` for every crop of an image that has at most `crops` of them.

    ValueError as `plan` raises it, also where the smallest share of a crop is ruled out.
    """
    resolved = _checked(method, budget, params)
    if shape is not None:
        plan(method, shape, budget, **resolved)
        try:
            plan(method, shape, max(1, budget // crops), **resolved)
        except ValueError as error:
            raise ValueError(f"budget {budget} shared among {crops} crops: {error}") from None
    return Plans(method, int(budget), resolved, shape)
