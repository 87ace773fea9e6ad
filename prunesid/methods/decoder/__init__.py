"""Methods that drop visual tokens inside the language model, one file each, and their plans.

A late method is a function `(shape, budget, **parameters) -> Schedule`, which says after which
layers tokens are dropped and how they are chosen; `prunesid.generate.decoder_pass` runs any schedule:

    @register("name", params={"keep": Param(None, int, minimum=1)})
    def name(shape, budget, *, keep): ...

Of what the vision tower leaves behind it may need `last_cls_attention`, which its views hold.
`budget` is the mean, over the decoder's layers, of the visual tokens ENTERING a layer. A module of
this package is found by itself; others call `register` or name their module in the entry-point
group `prunesid.methods.decoder`.
"""

from __future__ import annotations

import numbers
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from prunesid.core.parameters import Param
from prunesid.core.parametric import ParametricRegistry, Resolved, Source
from prunesid.methods.decoder.schedule import Schedule, Shape, check_positions
from prunesid.methods.features import NO_NEEDS, Needs

__all__ = [
    "Schedule",
    "Shape",
    "function_of",
    "list_late_methods",
    "modules_of",
    "parameters",
    "plan",
    "refusal",
    "register",
    "requirements",
    "resolve",
    "source_of",
    "without_needs",
]


@dataclass(frozen=True)
class LateMethod:
    """A registered method: the function, its parameters, and what follows from their values."""

    run: Callable[..., Schedule]
    params: Mapping[str, Param]
    needs: Callable[[Resolved], Needs]
    source: Source | None = None


_METHODS: ParametricRegistry[LateMethod] = ParametricRegistry("late method", __name__)
resolve, parameters = _METHODS.resolve, _METHODS.parameters
function_of, modules_of = _METHODS.function_of, _METHODS.modules_of
source_of = _METHODS.source_of


def register(
    name: str,
    *,
    params: Mapping[str, Param] | None = None,
    needs: Needs | Callable[[Resolved], Needs] = NO_NEEDS,
    source: Source | None = None,
) -> Callable[[Callable[..., Schedule]], Callable[..., Schedule]]:
    """A decorator that registers a late method; ValueError if the name is taken.

    needs   constant, or a function of the parameters
    source  the paper and the authors' code
    """

    def add(run: Callable[..., Schedule]) -> Callable[..., Schedule]:
        asked = needs if callable(needs) else lambda _: needs
        _METHODS.register(name)(LateMethod(run, params or {}, asked, source))
        return run

    return add


def list_late_methods() -> list[str]:
    """The names `plan` accepts, sorted."""
    return _METHODS.names()


def requirements(method: str, **params: object) -> Needs:
    """The record fields that the method reads; ValueError where its views do not hold them."""
    needs = _METHODS[method].needs(resolve(method, **params))
    if needs not in (NO_NEEDS, Needs(last_cls_attention=True)):
        raise ValueError(f"{method} needs {needs}; late methods can need last_cls_attention alone")
    return needs


def refusal(method: str, family: str, newlines: bool, **params: object) -> str | None:
    """The message for a family whose images give the method no CLS attention; None where they do.

    newlines  whether its images, kept whole, enter the language model with newlines
    """
    if not newlines or requirements(method, **params) == NO_NEEDS:
        return None
    return (
        f"{method} reads the CLS attention of every token that enters; in the model family "
        f"{family!r} newlines enter among the patches, which have none"
        f"{without_needs(method, **params)}"
    )


def without_needs(method: str, **params: object) -> str:
    """The parameter that, turned off, frees the method of what it needs, as a hint; '' without one."""
    for name, value in resolve(method, **params).items():
        if isinstance(value, (bool, int, float)):
            off = type(value)(0)
            try:
                needs = requirements(method, **{**params, name: off})
            except ValueError:  # off is no value of this parameter
                continue
            if needs == NO_NEEDS:
                return f"; {name}={off:g} does without"
    return ""


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
