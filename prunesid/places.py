"""Where a method acts: in the vision encoder, on the features that it leaves, or in the language model."""

from __future__ import annotations

from itertools import chain
from types import ModuleType

from prunesid import encoding, late, methods
from prunesid.parametric import Resolved, Source
from prunesid.registry import unknown

ENCODER, FEATURES, DECODER = "encoder", "features", "decoder"
PACKAGES: dict[str, ModuleType] = {ENCODER: encoding, FEATURES: methods, DECODER: late}
"""The package that holds the methods of each place."""


def listed() -> dict[str, list[str]]:
    """The methods of each place, sorted."""
    return {
        ENCODER: encoding.list_encoder_methods(),
        FEATURES: methods.list_methods(),
        DECODER: late.list_late_methods(),
    }


def place_of(method: str) -> str:
    """ENCODER, FEATURES or DECODER; ValueError, naming the choices, for an unknown method."""
    found = listed()
    for place, names in found.items():
        if method in names:
            return place
    raise ValueError(unknown("method", method, chain.from_iterable(found.values())))


def resolve(method: str, **params: object) -> Resolved:
    """All parameters of a method of any place.

    ValueError, naming the choices, on unknown methods, parameters and values.
    """
    return PACKAGES[place_of(method)].resolve(method, **params)


def source_of(method: str) -> Source | None:
    """Paper and authors' code of a method of any place; None for a baseline."""
    found: Source | None = PACKAGES[place_of(method)].source_of(method)
    return found
