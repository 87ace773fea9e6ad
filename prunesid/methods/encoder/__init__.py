"""Methods that act in or before the vision encoder, one file each, and their plans.

Such a method is a function `(shape, budget, **parameters) -> Plan`. The plan says how many patches
each block of the encoder sees. An adapter runs any plan (`Adapter.reduce`):

    @register("name", params={"order": Param("split", str, ("split", "raster"))})
    def name(shape, budget, *, order): ...

`budget` is the largest number of visual tokens that come out of one crop. `shape.shown` is the box
of the patches that show the image; the plan passes it on as its own `shown`. For an image in
several crops, and for a clip, each crop or frame has its own plan (`plans`). A method that only
shrinks the image may also register `grid`, a function of an image's rows and columns and of the
budget. It returns the rows and columns of the smaller image. The method then runs on encoders that
take images of any size.

Each arm of such a method needs its own encoder pass. The modules of this package are found
automatically. Other modules call `register`, or plug-ins name them in the entry-point group
`prunesid.methods`.
"""

from __future__ import annotations

import numbers
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from prunesid.core.costs import EncoderShape
from prunesid.core.faults import MethodError, said
from prunesid.core.parameters import Param
from prunesid.core.rectangle import Box
from prunesid.core.registry import check_function
from prunesid.methods.encoder.plan import Plan
from prunesid.methods.registry import ENCODER, METHODS, Method, Resolved, Source, method_at, resolve

__all__ = ["Grid", "Plan", "Plans", "plan", "plans", "register", "shrinks"]

Grid = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class EncoderMethod(Method):
    """A registered method that acts in the vision encoder; `grid` as in the package's docstring."""

    place = ENCODER
    run: Callable[..., Plan]
    grid: Callable[..., Grid] | None = None


def register(
    name: str,
    *,
    params: Mapping[str, Param] | None = None,
    grid: Callable[..., Grid] | None = None,
    source: Source | None = None,
) -> Callable[[Callable[..., Plan]], Callable[..., Plan]]:
    """A decorator that registers an encoder method; ValueError if the name is taken.

    grid    the function that gives the grid of the smaller image; None if the method does more than
            shrink the image
    source  the paper and the authors' code; None for a baseline
    """
    place = METHODS.register(name)

    def add(run: Callable[..., Plan]) -> Callable[..., Plan]:
        entry = EncoderMethod(run=run, params=params or {}, grid=grid, source=source)
        for function in [run] if grid is None else [run, grid]:
            check_function(f"method {name!r}", function, "shape", "budget", named=[*entry.params])
        place(entry)
        return run

    return add


def _method(name: str) -> EncoderMethod:
    entry = method_at(name, ENCODER)
    assert isinstance(entry, EncoderMethod)
    return entry


def shrinks(method: str) -> bool:
    """Whether the method only shrinks the image, and so runs on encoders of any image size."""
    return _method(method).grid is not None


def plan(method: str, shape: EncoderShape, budget: int, **params: object) -> Plan:
    """The plan by which `method` leaves at most `budget` tokens of a crop in an encoder of `shape`.

    A budget of all patches or more changes nothing. ValueError on unknown names and values, and on
    a budget that is too small for the encoder's depth; the message names the smallest possible one.
    MethodError, naming the method, if it raises anything else, or plans what the encoder cannot do.
    """
    resolved = _checked(method, budget, params)
    if budget >= shape.tokens:
        return Plan(shape.side, (0,) * shape.read, shown=shape.shown)
    found = _planned(method, _method(method).run, shape, int(budget), resolved)
    if not isinstance(found, Plan):
        raise MethodError(f"{method} returned a {type(found).__name__}, not a Plan")
    halved = all(0 <= n <= of // 2 for of, n in zip(found.entering, found.merged, strict=False))
    if not (1 <= found.tokens <= budget and halved and len(found.merged) == shape.read):
        raise MethodError(
            f"{method} made a plan for {budget} tokens that an encoder of {shape.read} blocks, "
            f"each merging at most half of its patches, cannot follow: {found}"
        )
    return found


def _planned(
    method: str, run: Callable[..., object], of: object, budget: int, resolved: Resolved
) -> object:
    """The result of a method's function `run`.

    MethodError, naming the method, if the function raises anything but ValueError.
    """
    try:
        return run(of, budget, **resolved)
    except ValueError:
        raise
    except Exception as error:  # a method may raise anything, and has to be named
        raise MethodError(f"{method} has no plan: {said(error)}") from error


def _checked(method: str, budget: int, params: Mapping[str, object]) -> Resolved:
    resolved = resolve(method, **params)
    if isinstance(budget, bool) or not isinstance(budget, numbers.Integral) or budget < 1:
        raise ValueError(f"budget must be a positive number of tokens, not {budget!r}")
    return resolved


@dataclass(frozen=True)
class Plans:
    """A method's plans for the crops of an image or the frames of a clip.

    shape   the encoder's shape; None if it takes images of any size
    budget  tokens of the whole image or clip, which `ImageRecords.patch_budgets` shares among its
            crops
    """

    method: str
    budget: int
    params: Resolved
    shape: EncoderShape | None

    def of(self, share: int, shown: Box | None = None) -> Plan:
        """The plan of a crop that gets `share` tokens; `shown` as in `EncoderShape`.

        ValueError if the encoder takes images of any size.
        """
        if self.shape is None:
            raise ValueError(f"{self.method} has no plan for images of any size")
        return plan(self.method, replace(self.shape, shown=shown), share, **self.params)

    def grid(self, whole: Grid, share: int) -> Grid:
        """Rows and columns, together at most `share` tokens, of the smaller image.

        whole  rows and columns of the full image

        ValueError if the method does more than shrink the image.
        """
        smaller = _method(self.method).grid
        if smaller is None:
            raise ValueError(f"{self.method} does more than shrink the image")
        if share >= whole[0] * whole[1]:
            return whole
        found = _planned(self.method, smaller, whole, share, self.params)
        if not (
            isinstance(found, tuple)
            and len(found) == 2
            and all(
                isinstance(n, int) and 0 < n <= most for n, most in zip(found, whole, strict=True)
            )
            and found[0] * found[1] <= share
        ):
            raise MethodError(
                f"{self.method} shrinks {whole[0]} x {whole[1]} tokens to {found}, not to rows and "
                f"columns of at most {share}"
            )
        return found


def plans(
    method: str, shape: EncoderShape | None, budget: int, *, crops: int = 1, **params: object
) -> Plans:
    """The plans for an image of at most `crops` crops.

    ValueError as in `plan`, also if the smallest share that a crop can get is too small.
    """
    resolved = _checked(method, budget, params)
    if shape is not None:
        plan(method, shape, budget, **resolved)
        try:
            plan(method, shape, max(1, budget // crops), **resolved)
        except ValueError as error:
            raise ValueError(f"budget {budget} shared among {crops} crops: {error}") from None
    return Plans(method, int(budget), resolved, shape)
