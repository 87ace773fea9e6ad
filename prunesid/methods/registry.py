"""The registry of all methods, with their places, parameters, needs and sources.

A method acts in one of three places: in the vision encoder, on the features after it (by the image
alone, or by image and question), or in the language model. Each place has its own package, with one
file per method. Plug-ins for any place name their module in the entry-point group
`prunesid.methods`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import NoneType
from typing import Any, ClassVar

from prunesid.core.crops import OF_ARMS
from prunesid.core.faults import MethodError, said
from prunesid.core.needs import NO_NEEDS, Needs
from prunesid.core.parameters import Param, Value, check_parameters
from prunesid.core.registry import Registry, unknown

Resolved = dict[str, Value]

ENCODER, FEATURES, QUESTION, DECODER = "encoder", "features", "question", "decoder"
# Methods by image and question are methods on features that read the record's relevance.
PACKAGES = {
    place: f"{__package__}.{FEATURES if place == QUESTION else place}"
    for place in (ENCODER, FEATURES, QUESTION, DECODER)
}
RUN = {
    ENCODER: "acts inside the vision encoder; prunesid.pruned(model, processor, ...) and a study "
    "run it",
    FEATURES: "chooses among the features of an image; prunesid.compress(record, ...) runs it",
    QUESTION: "chooses among the features of an image by a question; prunesid.compress(record, "
    "...) with the record's relevance, prunesid.pruned(model, processor, ...) and a study run it",
    DECODER: "drops tokens inside the language model; prunesid.pruned(model, processor, ...), a "
    "study and `lmms-eval --model prunesid` run it",
}
PRESET, UPSTREAM = "preset", "upstream"


@dataclass(frozen=True)
class Upstream:
    """A parameter's value in the authors' code, and the reason why our default differs."""

    value: Value
    reason: str


@dataclass(frozen=True)
class Source:
    """A method's paper and authors' code ("upstream"), and the checks against that code.

    title       title of the paper
    venue       venue and year of the paper
    repository  owner and name of the authors' code on GitHub
    commit      the commit that was run; "" if the code was only read, not run
    golden      files of `tests/golden` that hold the code's results
    upstream    parameters whose defaults differ from the code; `preset="upstream"` sets them
    """

    title: str
    venue: str
    repository: str
    commit: str = ""
    golden: tuple[str, ...] = ()
    upstream: Mapping[str, Upstream] = field(default_factory=dict)


def no_needs(_: Resolved) -> Needs:
    """The needs of a method that reads features alone, whatever its parameters."""
    return NO_NEEDS


def stated(method: str, what: str, given: Any, *kinds: type) -> Callable[..., Any]:
    """`given`, a constant of `kinds` or a function that returns one, as a function.

    ValueError if it is a constant of another type. The returned function raises MethodError if
    `given` returns another type, or raises anything but ValueError.
    """

    def right(value: object, error: type[ValueError]) -> object:
        if not isinstance(value, kinds):
            names = " or ".join(kind.__name__.removesuffix("Type") for kind in kinds)
            raise error(f"`{what}` of method {method!r} gives {value!r}, which is no {names}")
        return value

    if not callable(given):
        right(given, ValueError)
        return lambda *_: given

    def run(*arguments: object) -> object:
        try:
            found = given(*arguments)
        except ValueError:
            raise
        except Exception as error:  # a plug-in may raise anything, and has to be named
            raise MethodError(f"`{what}` of method {method!r} fails: {said(error)}") from error
        return right(found, MethodError)

    return run


# The settings of an arm besides the parameters of its method, which must not have these names.
RESERVED = ("method", "budget", "dynamic", "seed", "label", *OF_ARMS)


@dataclass(frozen=True, kw_only=True)
class Method:
    """A registered method.

    run       its function
    params    its parameters by name
    complete  fills in parameters that depend on others (presets) and rejects invalid combinations
    needs     gives the record fields that it reads with given parameters
    source    the paper and the authors' code; None for a baseline
    """

    place: ClassVar[str]
    run: Callable[..., Any]
    params: Mapping[str, Param]
    complete: Callable[[Resolved], Resolved] = dict
    needs: Callable[[Resolved], Needs] = no_needs
    source: Source | None = None

    def __post_init__(self) -> None:
        if not (
            isinstance(self.params, Mapping)
            and all(isinstance(param, Param) for param in self.params.values())
        ):
            raise ValueError(f"`params` is a dict of a Param for each name, not {self.params!r}")
        if not isinstance(self.source, (Source, NoneType)):
            raise ValueError(f"`source` is a Source, not {self.source!r}")
        for name in self.params:
            if name in RESERVED or not str(name).isidentifier():
                raise ValueError(
                    f"a method's parameter cannot be named {name!r}: it has to be a name of "
                    f"Python's, and arms have {', '.join(RESERVED)} themselves"
                )


@dataclass(frozen=True)
class MethodFacts:
    """The facts about a method that `list_methods` returns.

    place       ENCODER, FEATURES, QUESTION or DECODER
    needs       record fields that it reads with its defaults
    parameters  parameters by name, with defaults and valid values
    source      the paper and the authors' code; None for a baseline
    """

    place: str
    needs: Needs
    parameters: Mapping[str, Param]
    source: Source | None


METHODS: Registry[Method] = Registry(
    "method",
    *dict.fromkeys(PACKAGES.values()),
    group="prunesid.methods",
    reserved=("vanilla", "all"),
)


def list_methods(*places: str) -> dict[str, MethodFacts]:
    """Facts about the methods that act at `places` (none given: at all places), sorted by name."""
    found = {}
    for name in METHODS.names():
        place = place_of(name)
        if place in places or not places:
            entry = METHODS[name]
            found[name] = MethodFacts(place, requirements(name), entry.params, entry.source)
    return found


def method_at(name: str, *places: str) -> Method:
    """The method, if it acts at one of `places`; else ValueError, naming the choices."""
    entry = METHODS[name]
    if entry.place not in places:
        able = list_methods(*places, *([QUESTION] if FEATURES in places else []))
        raise ValueError(refusal(name, able))
    return entry


def refusal(method: str, able: Iterable[str]) -> str:
    """The error message for a method of the wrong place; `able` are methods of the right one.

    ValueError, naming the choices, for an unknown method.
    """
    return f"{method} {RUN[place_of(method)]}. Methods that serve here: {', '.join(able)}."


def place_of(method: str) -> str:
    """ENCODER, FEATURES, QUESTION or DECODER, the place where a method acts.

    A method that reads the question by default acts at QUESTION. ValueError, naming the choices,
    for an unknown method.
    """
    place = METHODS[method].place
    return QUESTION if place == FEATURES and requirements(method).relevance else place


def package_of(method: str) -> str:
    """The package of the methods that act at this method's place."""
    return PACKAGES[METHODS[method].place]


def parameters(method: str) -> Mapping[str, Param]:
    """The parameters of a method, by name."""
    return METHODS[method].params


def function_of(method: str) -> Callable[..., Any]:
    """The registered function; its docstring explains the parameters."""
    return METHODS[method].run


def source_of(method: str) -> Source | None:
    """Paper and authors' code; None for a baseline, and for plug-ins that do not declare them."""
    return METHODS[method].source


def resolve(method: str, **params: object) -> Resolved:
    """All parameters of a method, checked, with defaults filled in.

    `preset="upstream"` stands for the values that reproduce the authors' code (`Source`); other
    given parameters override it. `resolve(m, **resolve(m, **p)) == resolve(m, **p)`. ValueError,
    naming the choices, on unknown methods, parameters and values, and on that preset if the method
    has no source.
    """
    entry = METHODS[method]
    given = _expanded(method, entry, params)
    found = entry.complete(check_parameters(method, entry.params, given))
    if found.keys() != entry.params.keys():
        raise MethodError(
            f"`complete` of method {method!r} gives {', '.join(found) or 'nothing'}; its "
            f"parameters are {', '.join(entry.params)}"
        )
    return found


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
