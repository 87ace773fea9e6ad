"""Where a method acts: in the vision encoder, on the features that it leaves, or in the language model."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from types import ModuleType

from prunesid import encoding, late, methods
from prunesid.parametric import Resolved
from prunesid.registry import unknown

ENCODER, FEATURES, DECODER = "encoder", "features", "decoder"
PACKAGES: dict[str, ModuleType] = {ENCODER: encoding, FEATURES: methods, DECODER: late}
"""The package that holds the methods of each place."""
RUN = {
    ENCODER: "acts inside the vision encoder; prunesid.pruned(model, processor, ...) and a study run it",
    FEATURES: "chooses among the features of an image; prunesid.compress(record, ...) runs it",
    DECODER: "drops tokens inside the language model; prunesid.answering.late.answer_late, a study and "
    "`lmms-eval --model prunesid` run it",
}
"""What a method of each place does, and what runs it."""


def listed() -> dict[str, list[str]]:
    """The methods of each place, sorted."""
    return {
        ENCODER: encoding.list_encoder_methods(),
        FEATURES: methods.list_feature_methods(),
        DECODER: late.list_late_methods(),
    }


def list_methods() -> list[str]:
    """The methods of every place, sorted."""
    return sorted(chain.from_iterable(listed().values()))


def refusal(method: str, able: Iterable[str]) -> str:
    """The message where a method of another place is asked for; `able` are those of the right one.

    ValueError, naming the choices, for an unknown method.
    """
    return f"{method} {RUN[place_of(method)]}. Methods that serve here: {', '.join(able)}."


def place_of(method: str) -> str:
    """ENCODER, FEATURES or DECODER; ValueError, naming the choices, for an unknown method."""
    for place, names in listed().items():
        if method in names:
            return place
    raise ValueError(unknown("method", method, list_methods()))


def resolve(method: str, **params: object) -> Resolved:
    """All parameters of a method of any place.

    ValueError, naming the choices, on unknown methods, parameters and values.
    """
    return PACKAGES[place_of(method)].resolve(method, **params)
