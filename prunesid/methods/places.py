"""Where a method acts.

In the vision encoder; on the features that it leaves, by the image alone or by image and question; or
in the language model.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import ModuleType

from prunesid.core.parametric import Resolved, Source
from prunesid.core.registry import unknown
from prunesid.methods import decoder, encoder, features

ENCODER, FEATURES, QUESTION, DECODER = "encoder", "features", "question", "decoder"
PACKAGES: dict[str, ModuleType] = {
    ENCODER: encoder, FEATURES: features, QUESTION: features, DECODER: decoder
}  # fmt: skip
"""The package that holds the methods of each place."""
RUN = {
    ENCODER: "acts inside the vision encoder; prunesid.pruned(model, processor, ...) and a study run it",
    FEATURES: "chooses among the features of an image; prunesid.compress(record, ...) runs it",
    QUESTION: "chooses among the features of an image by a question; prunesid.compress(record, ...) with the "
    "record's relevance, prunesid.pruned(model, processor, ...) and a study run it",
    DECODER: "drops tokens inside the language model; prunesid.generate.late.answer_late, a study and "
    "`lmms-eval --model prunesid` run it",
}
"""What a method of each place does, and what runs it."""


def listed() -> dict[str, list[str]]:
    """The methods of each place, sorted; one that reads the question by default acts at QUESTION."""
    found: dict[str, list[str]] = {place: [] for place in PACKAGES}
    for method in list_methods():
        found[place_of(method)].append(method)
    return found


def list_methods() -> list[str]:
    """The methods of every place, sorted."""
    return sorted(
        [
            *encoder.list_encoder_methods(),
            *features.list_feature_methods(),
            *decoder.list_late_methods(),
        ]
    )


def refusal(method: str, able: Iterable[str]) -> str:
    """The message where a method of another place is asked for; `able` are those of the right one.

    ValueError, naming the choices, for an unknown method.
    """
    return f"{method} {RUN[place_of(method)]}. Methods that serve here: {', '.join(able)}."


def package_of(method: str) -> ModuleType:
    """The package that holds a method; ValueError, naming the choices, for an unknown one."""
    if method in encoder.list_encoder_methods():
        return encoder
    if method in decoder.list_late_methods():
        return decoder
    if method in features.list_feature_methods():
        return features
    raise ValueError(unknown("method", method, list_methods()))


def place_of(method: str) -> str:
    """ENCODER, FEATURES, QUESTION or DECODER; ValueError, naming the choices, for an unknown method."""
    package = package_of(method)
    if package is features:
        return QUESTION if features.requirements(method).relevance else FEATURES
    return ENCODER if package is encoder else DECODER


def resolve(method: str, **params: object) -> Resolved:
    """All parameters of a method of any place.

    ValueError, naming the choices, on unknown methods, parameters and values.
    """
    return package_of(method).resolve(method, **params)


def source_of(method: str) -> Source | None:
    """Paper and authors' code of a method of any place; None for a baseline."""
    found: Source | None = package_of(method).source_of(method)
    return found
