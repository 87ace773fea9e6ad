"""What the registries of methods have in common, wherever a method acts: functions with parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from prunesid.core.parameters import Param, Value, check_parameters
from prunesid.core.registry import Registry, unknown

Resolved = dict[str, Value]

PRESET, UPSTREAM = "preset", "upstream"


@dataclass(frozen=True)
class Upstream:
    """What the authors' code does where a default differs: the parameter's value, and our reason."""

    value: Value
    reason: str


@dataclass(frozen=True)
class Source:
    """Where a method comes from, and what of it can be checked.

    title, venue  of the paper
    repository    owner and name on GitHub of the code that is meant by "upstream"
    commit        the one that was run; "" where its code was read or described, and not run
    golden        files of `tests/golden` that hold what it returned
    upstream      parameters whose defaults differ from it; `preset="upstream"` sets them
    """

    title: str
    venue: str
    repository: str
    commit: str = ""
    golden: tuple[str, ...] = ()
    upstream: Mapping[str, Upstream] = field(default_factory=dict)


class Parametric(Protocol):
    """A registered function and the parameters that it takes, by name."""

    @property
    def run(self) -> Callable[..., Any]: ...

    @property
    def params(self) -> Mapping[str, Param]: ...

    @property
    def source(self) -> Source | None: ...


Entry = TypeVar("Entry", bound=Parametric)


class ParametricRegistry(Registry[Entry]):
    """A registry whose entries take parameters; ValueError, naming the choices, on unknown names."""

    def parameters(self, method: str) -> Mapping[str, Param]:
        """The parameters of the method, by name."""
        return self[method].params

    def function_of(self, method: str) -> Callable[..., Any]:
        """The registered function, whose docstring says what the parameters mean."""
        return self[method].run

    def source_of(self, method: str) -> Source | None:
        """Where the method comes from; None for a baseline, and for plug-ins that do not say it."""
        return self[method].source

    def resolve(self, method: str, **params: object) -> Resolved:
        """All parameters of the method, checked, defaults filled in.

        `preset="upstream"` stands for the values that reproduce the authors' code; a parameter given
        beside it wins. ValueError for it where the method has no authors to follow.
        """
        return check_parameters(method, self.parameters(method), self._expanded(method, params))

    def _expanded(self, method: str, params: Mapping[str, object]) -> Mapping[str, object]:
        preset, source = params.get(PRESET), self.source_of(method)
        if preset == UPSTREAM:
            if source is None:
                raise ValueError(
                    f"{method} has no preset {UPSTREAM!r}: no authors' code is recorded for it"
                )
            rest = {name: value for name, value in params.items() if name != PRESET}
            return {name: each.value for name, each in source.upstream.items()} | rest
        if PRESET in params and source is not None and PRESET not in self.parameters(method):
            raise ValueError(unknown(f"{PRESET} of {method}", preset, [UPSTREAM]))
        return params
