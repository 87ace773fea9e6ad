"""The parameters that a method accepts, and the check of the values that a user gave."""

from __future__ import annotations

import numbers
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prunesid.core.registry import unknown

# The largest finite number in floating point.
LARGEST = sys.float_info.max

Value = str | int | float | bool | None


@dataclass(frozen=True)
class Param:
    """One parameter: its default, its kind (str, int, float, bool) and its valid values.

    choices  the valid strings, or a function that lists them (a registry's `names`); None: any
    minimum  the smallest valid number
    None is valid if and only if it is the default.
    """

    default: Value
    kind: type
    choices: Sequence[str] | Callable[[], Sequence[str]] | None = ()
    minimum: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in (str, int, float, bool):
            raise ValueError(f"a parameter is a str, int, float or bool, not {self.kind!r}")
        # A function may list the names of a registry that is still being filled.
        if not callable(self.choices):
            self.check("default", self.default)

    def values(self) -> Sequence[Value]:
        """The valid values, if they can be listed."""
        if self.kind is bool:
            return (False, True)
        return self.choices() if callable(self.choices) else self.choices or ()

    def check(self, name: str, value: object) -> Value:
        """The value, converted to the parameter's kind; ValueError if it is not valid."""
        if value is None and self.default is None:
            return None
        if self.kind is str:
            if isinstance(value, str) and self.choices is None:
                return value
            if not isinstance(value, str) or value not in self.values():
                raise ValueError(unknown(name, value, map(str, self.values())))
            return value
        if self.kind is bool:
            if not isinstance(value, bool):
                raise ValueError(f"{name} must be true or false, not {value!r}.")
            return value
        # The abstract types, because numbers from a data frame are numpy's.
        whole = self.kind is int
        accepted = numbers.Integral if whole else numbers.Real
        if isinstance(value, bool) or not isinstance(value, accepted) or not _finite(value):
            word = "an integer" if whole else "a finite number"
            raise ValueError(f"{name} must be {word}, not {value!r}.")
        if self.minimum is not None and value < self.minimum:
            raise ValueError(f"{name} must be at least {self.minimum:g}, not {value!r}.")
        return int(value) if isinstance(value, numbers.Integral) and whole else float(value)


def check_parameters(
    owner: str, spec: Mapping[str, Param], given: Mapping[str, object]
) -> dict[str, Value]:
    """`given`, checked, with the defaults of `spec` filled in, in the order of `spec`."""
    for name in given:
        if name not in spec:
            raise ValueError(unknown(f"parameter of {owner}", name, spec))
    return {
        name: param.check(name, given[name]) if name in given else param.default
        for name, param in spec.items()
    }


def _finite(value: Any) -> bool:
    return bool(abs(value) <= LARGEST)
