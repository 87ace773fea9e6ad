"""Methods that drop visual tokens inside the language model, one file each, and their plans.

A late method is a function `(shape, budget, **parameters) -> Schedule`, which says after which
layers tokens are dropped and how they are chosen; `prunesid.generate.decoder_pass` runs any schedule:

    @register("name", params={"keep": Param(None, int, minimum=1)})
    def name(shape, budget, *, keep): ...

Of what the vision tower leaves behind it may need `last_cls_attention`, which its views hold.
`budget` is the mean, over the decoder's layers, of the visual tokens ENTERING a layer. A module of
this package is found by itself; others call `register` or name their module in the entry-point
group `prunesid.methods`.
"""

from __future__ import annotations

import numbers
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from prunesid.core.needs import NO_NEEDS, Needs
from prunesid.core.parameters import Param
from prunesid.methods.decoder.schedule import Schedule, Shape, check_positions
from prunesid.methods.registry import (
    DECODER,
    METHODS,
    Method,
    Resolved,
    Source,
    method_at,
    requirements,
    resolve,
)

# Families whose images, kept whole, enter the language model with newlines.
NEWLINED = ("llava_next", "llava_onevision")


@dataclass(frozen=True, kw_only=True)
class DecoderMethod(Method):
    """A method inside the language model."""

    place = DECODER


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
        def checked(resolved: Resolved) -> Needs:
            asked = needs(resolved) if callable(needs) else needs
            if asked not in (NO_NEEDS, Needs(last_cls_attention=True)):
                raise ValueError(
                    f"{name} needs {asked}; late methods can need last_cls_attention alone"
                )
            return asked

        entry = DecoderMethod(run=run, params=params or {}, needs=checked, source=source)
        METHODS.register(name)(entry)
        return run

    return add


def refusal(method: str, family: str, **params: object) -> str | None:
    """The message for a family whose images give the method no CLS attention; None where they do."""
    if family not in NEWLINED or requirements(method, **params) == NO_NEEDS:
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
    entry, resolved = method_at(method, DECODER), resolve(method, **params)
    check_positions(resolved.get("positions"), shape.axes)
    if budget is not None:
        if isinstance(budget, bool) or not isinstance(budget, numbers.Integral) or budget < 1:
            raise ValueError(f"budget must be a positive number of tokens, not {budget!r}")
        if budget >= shape.tokens:
            return Schedule()
    return entry.run(shape, None if budget is None else int(budget), **resolved)
