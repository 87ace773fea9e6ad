"""Where a method acts.

In the vision encoder; on the features that it leaves, by the image alone or by image and question; or
in the language model.
"""

from __future__ import annotations

from itertools import chain
from types import ModuleType

from prunesid import encoding, late, methods
from prunesid.parametric import Resolved
from prunesid.registry import unknown

ENCODER, FEATURES, QUESTION, DECODER = "encoder", "features", "question", "decoder"
PACKAGES: dict[str, ModuleType] = {
    ENCODER: encoding, FEATURES: methods, QUESTION: methods, DECODER: late
}  # fmt: skip
"""The package that holds the methods of each place."""


def listed() -> dict[str, list[str]]:
    """The methods of each place, sorted; one that reads the question by default acts at QUESTION."""
    by_question = [name for name in methods.list_methods() if methods.requirements(name).relevance]
    return {
        ENCODER: encoding.list_encoder_methods(),
        FEATURES: [name for name in methods.list_methods() if name not in by_question],
        QUESTION: by_question,
        DECODER: late.list_late_methods(),
    }


def place_of(method: str) -> str:
    """ENCODER, FEATURES, QUESTION or DECODER; ValueError, naming the choices, for an unknown method."""
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
