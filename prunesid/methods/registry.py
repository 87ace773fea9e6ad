"""The one registry of methods, wherever they act: what each takes, reads, and comes from.

A method acts in the vision encoder; on the features that it leaves, by the image alone or by image
and question; or in the language model. Each place has a package of its own, one file per method.
Plug-ins name their module in the entry-point group `prunesid.methods`, whatever the place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from prunesid.core.needs import NO_NEEDS, Needs
from prunesid.core.parameters import Param, Value, check_parameters
from prunesid.core.registry import Registry, unknown

Resolved = dict[str, Value]

ENCODER, FEATURES, QUESTION, DECODER = "encoder", "features", "question", "decoder"
# Methods by image and question are features' methods that read the record's relevance.
PACKAGES = {
    place: f"{__package__}.{FEATURES if place == QUESTION else place}"
    for place in (ENCODER, FEATURES, QUESTION, DECODER)
}
RUN = {
    ENCODER: "acts inside the vision encoder; prunesid.pruned(model, processor, ...) and a study "
    "run it",
    FEATURES: "chooses among the features of an image; prunesid.compress(record, ...) runs it",
    QUESTION: "chooses among the features of an image by a question; prunesid.compress(record, ...) "
    "with the record's relevance, prunesid.pruned(model, processor, ...) and a study run it",
    DECODER: "drops tokens inside the language model; prunesid.pruned(model, processor, ...), a "
    "study and `lmms-eval --model prunesid` run it",
}
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


def no_needs(_: Resolved) -> Needs:
    """Of methods that read features alone, whatever their parameters."""
    return NO_NEEDS


@dataclass(frozen=True, kw_only=True)
class Method:
    """A registered method: its function, its parameters, and what follows from their values.

    complete  fills parameters that depend on others (presets) and rejects combinations
    needs     the record fields that it reads with these parameters
    source    the paper and the authors' code; None for a baseline
    """

    place: ClassVar[str]
    run: Callable[..., Any]
    params: Mapping[str, Param]
    complete: Callable[[Resolved], Resolved] = dict
    needs: Callable[[Resolved], Needs] = no_needs
    source: Source | None = None


@dataclass(frozen=True)
class MethodFacts:
    """What `list_methods` says of a method.

    place       ENCODER, FEATURES, QUESTION or DECODER
    needs       record fields that it reads with its defaults
    parameters  by name, with defaults and valid values
    source      the paper and the authors' code; None for a baseline
    """

    place: str
    needs: Needs
    parameters: Mapping[str, Param]
    source: Source | None


METHODS: Registry[Method] = Registry(
    "method", *dict.fromkeys(PACKAGES.values()), group="prunesid.methods"
)


def list_methods(*places: str) -> dict[str, MethodFacts]:
    """The methods that act at `places`, all without any: facts by name, sorted by name."""
    found = {}
    for name in METHODS.names():
        place = place_of(name)
        if place in places or not places:
            entry = METHODS[name]
            found[name] = MethodFacts(place, requirements(name), entry.params, entry.source)
    return found


def method_at(name: str, *places: str) -> Method:
    """A method that acts at one of `places`; ValueError, naming the choices, for any other."""
    entry = METHODS[name]
    if entry.place not in places:
        able = list_methods(*places, *([QUESTION] if FEATURES in places else []))
        raise ValueError(refusal(name, able))
    return entry


def refusal(method: str, able: Iterable[str]) -> str:
    """The message where a method of another place is asked for; `able` are those of the right one.

    ValueError, naming the choices, for an unknown method.
    """
    return f"{method} {RUN[place_of(method)]}. Methods that serve here: {', '.join(able)}."


def place_of(method: str) -> str:
    """ENCODER, FEATURES, QUESTION or DECODER; ValueError, naming the choices, if it is unknown.

    A method that reads the question by default acts at QUESTION.
    """
    place = METHODS[method].place
    return QUESTION if place == FEATURES and requirements(method).relevance else place


def package_of(method: str) -> str:
    """The package that holds methods of this one's place."""
    return PACKAGES[METHODS[method].place]


def parameters(method: str) -> Mapping[str, Param]:
    """The parameters of a method, by name."""
    return METHODS[method].params


def function_of(method: str) -> Callable[..., Any]:
    """The registered function, whose docstring says what the parameters mean."""
    return METHODS[method].run


def source_of(method: str) -> Source | None:
    """Paper and authors' code; None for a baseline, and for plug-ins that do not say it."""
    return METHODS[method].source


def resolve(method: str, **params: object) -> Resolved:
    """All parameters of a method, checked, defaults filled in.

    `preset="upstream"` stands for the values that reproduce the authors' code (`Source`); a
    parameter given beside it wins. `resolve(m, **resolve(m, **p)) == resolve(m, **p)`. ValueError,
    naming the choices, on unknown methods, parameters and values, and for that preset where the
    method has no authors to follow.
    """
    entry = METHODS[method]
    given = _expanded(method, entry, params)
    return entry.complete(check_parameters(method, entry.params, given))


def _expanded(method: str, entry: Method, params: Mapping[str, object]) -> Mapping[str, object]:
    preset, source = params.get(PRESET), entry.source
    if preset == UPSTREAM:
        if source is None:
            raise ValueError(
                f"{method} has no preset {UPSTREAM!r}: no authors' code is recorded for it"
            )
        rest = {name: value for name, value in params.items() if name != PRESET}
        return {name: each.value for name, each in source.upstream.items()} | rest
    if PRESET in params and source is not None and PRESET not in entry.params:
        raise ValueError(unknown(f"{PRESET} of {method}", preset, [UPSTREAM]))
    return params


def requirements(method: str, **params: object) -> Needs:
    """The optional record fields that a method reads with these parameters."""
    return METHODS[method].needs(resolve(method, **params))
