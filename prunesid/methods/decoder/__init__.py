"""Methods that drop visual tokens inside the language model, one file each, and their plans.

A late method is a function `(shape, budget, **parameters) -> Schedule`. The schedule says after
which layers tokens are dropped and how they are chosen. `prunesid.generate.decoder_pass` runs any
schedule:

    @register("name", params={"keep": Param(None, int, minimum=1)})
    def name(shape, budget, *, keep): ...

`budget` is the mean, over the decoder's layers, of the visual tokens that ENTER a layer. The only
field of a `VisionRecord` that a late method may need is `last_cls_attention`; its views hold it.
The modules of this package are found automatically. Other modules call `register`, or plug-ins name
them in the entry-point group `prunesid.methods`.
"""

from __future__ import annotations

import numbers
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from prunesid.core.faults import MethodError, said
from prunesid.core.needs import NO_NEEDS, Needs
from prunesid.core.parameters import Param
from prunesid.core.registry import check_function
from prunesid.methods.decoder.schedule import DecoderShape, Schedule, check_positions
from prunesid.methods.registry import (
    DECODER,
    METHODS,
    Method,
    Resolved,
    Source,
    method_at,
    requirements,
    resolve,
    stated,
)

__all__ = ["DecoderShape", "Schedule", "plan", "register", "without_needs"]


@dataclass(frozen=True, kw_only=True)
class DecoderMethod(Method):
    """A registered method that acts in the language model."""

    place = DECODER


def register(
    name: str,
    *,
    params: Mapping[str, Param] | None = None,
    needs: Needs | Callable[[Resolved], Needs] = NO_NEEDS,
    source: Source | None = None,
) -> Callable[[Callable[..., Schedule]], Callable[..., Schedule]]:
    """A decorator that registers a late method; ValueError if the name is taken.

    needs   the record fields that it reads: a constant, or a function of the parameters
    source  the paper and the authors' code
    """
    place = METHODS.register(name)

    def add(run: Callable[..., Schedule]) -> Callable[..., Schedule]:
        asking = stated(name, "needs", needs, Needs)

        def checked(resolved: Resolved) -> Needs:
            asked: Needs = asking(resolved)
            if asked not in (NO_NEEDS, Needs(last_cls_attention=True)):
                raise ValueError(
                    f"{name} needs {asked}; late methods can need last_cls_attention alone"
                )
            return asked

        entry = DecoderMethod(run=run, params=params or {}, needs=checked, source=source)
        check_function(f"method {name!r}", run, "shape", "budget", named=[*entry.params])
        place(entry)
        return run

    return add


def without_needs(method: str, **params: object) -> str:
    """A hint that names a parameter which, if turned off, leaves no needs; '' if there is none."""
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


def plan(method: str, shape: DecoderShape, budget: int | None, **params: object) -> Schedule:
    """The schedule by which `method` drops tokens in a decoder of `shape`.

    budget  mean over the decoder's layers of the visual tokens that enter a layer. A budget of all
            tokens or more drops nothing. None if parameters replace it (FastV's `keep`)

    ValueError on unknown names and values, on positions that the decoder cannot have, and on a
    budget that is too small for its depth; the message names the smallest possible one.
    MethodError, naming the method, if it raises anything else, or plans what the decoder cannot do.
    """
    entry, resolved = method_at(method, DECODER), resolve(method, **params)
    check_positions(resolved.get("positions"), shape.axes)
    if budget is not None:
        if isinstance(budget, bool) or not isinstance(budget, numbers.Integral) or budget < 1:
            raise ValueError(f"budget must be a positive number of tokens, not {budget!r}")
        if budget >= shape.tokens:
            return Schedule()
    try:
        found: object = entry.run(shape, None if budget is None else int(budget), **resolved)
    except ValueError:
        raise
    except Exception as error:  # a method may raise anything, and has to be named
        raise MethodError(f"{method} has no plan: {said(error)}") from error
    if not isinstance(found, Schedule):
        raise MethodError(f"{method} returned a {type(found).__name__}, not a Schedule")
    after = [stage.after for stage in found.stages]
    if after != sorted(set(after)) or not set(after) <= set(range(shape.depth - 1)):
        raise MethodError(
            f"{method} drops tokens after the layers {after}; those of this decoder are 0 to "
            f"{shape.depth - 2}, each once"
        )
    return found
