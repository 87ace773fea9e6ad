"""What the registries of methods have in common, wherever a method acts: functions with parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

from prunesid.parameters import Param, Value, check_parameters
from prunesid.registry import Registry

Resolved = dict[str, Value]


class Parametric(Protocol):
    """A registered function and the parameters that it takes, by name."""

    @property
    def run(self) -> Callable[..., Any]: ...

    @property
    def params(self) -> Mapping[str, Param]: ...


Entry = TypeVar("Entry", bound=Parametric)


class ParametricRegistry(Registry[Entry]):
    """A registry whose entries take parameters; ValueError, naming the choices, on unknown names."""

    def parameters(self, method: str) -> Mapping[str, Param]:
        """The parameters of the method, by name."""
        return self[method].params

    def function_of(self, method: str) -> Callable[..., Any]:
        """The registered function, whose docstring says what the parameters mean."""
        return self[method].run

    def resolve(self, method: str, **params: object) -> Resolved:
        """All parameters of the method, checked, defaults filled in."""
        return check_parameters(method, self.parameters(method), params)
