"""Reading and checking YAML: one reader, one validator, and messages that name place and choices.

YAML 1.1 reads a bare `off` or `no` as false, `0100` and `1:04` as 64, `1_0` as 10 and `1e-3` as
text. `threshold: [scaled, off]` would then name a method that does not exist, so documents are read
by the rules of YAML 1.2; keys are text and occur once, and numbers have no leading zeros. Beyond
these rules, thousands may be set apart, as in 66_000_000.
"""

from __future__ import annotations

import copy
import difflib
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from prunesid.core.names import CONTROL, NAME, RULE
from prunesid.core.parameters import LARGEST
from prunesid.core.registry import shown, unknown
from prunesid.study.clone import in_clone

if TYPE_CHECKING:
    import jsonschema

# No study comes near these limits. They stop documents that refer to themselves, or expand without
# end.
LONGEST, DEEPEST, MOST = 2**20, 50, 100_000
# Likewise for the arms of an ablation, and for the parts of all benchmarks together.
ARMS, PARTS = 2_000, 1_000
NUMBER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)?(?:\.[0-9]+|(?<=[0-9]))")
# At most this many problems are shown, and this many letters of each.
PROBLEMS, LETTERS = 12, 600


class ConfigError(ValueError):
    """Everything that is wrong with a configuration, found in one pass; `problems` lists it."""

    def __init__(self, problems: Iterable[str]):
        self.problems = tuple(dict.fromkeys(problems))
        count = len(self.problems)
        head = "1 problem" if count == 1 else f"{count} problems"
        super().__init__(
            f"{head} in the configuration:\n" + "\n".join(f"  - {p}" for p in self.shown)
        )

    @property
    def shown(self) -> tuple[str, ...]:
        """The problems as the user sees them: a line each, only the first of very many."""
        lines = (" ".join(problem.split()) for problem in self.problems[:PROBLEMS])
        cut = [line if len(line) <= LETTERS else f"{line[:LETTERS]} ..." for line in lines]
        more = len(self.problems) - len(cut)
        return (*cut, f"... and {more} more") if more else tuple(cut)


@dataclass(frozen=True, eq=False)
class Document:
    """What a YAML file says, and where.

    value   mappings, lists and scalars
    origin  the file, or whatever else it comes from
    places  {dotted path, such as "vary.budget.0": (file and line, the scalar as written or '')}
    """

    value: Any
    origin: str
    places: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    @staticmethod
    def from_mapping(value: Mapping[str, Any], origin: str) -> Document:
        """The document of values that no file holds; all of them have the place `origin`."""

        def paths(part: Any, path: str) -> Iterator[str]:
            yield path
            if isinstance(part, (Mapping, list)):
                inside = part.items() if isinstance(part, Mapping) else enumerate(part)
                for name, each in inside:
                    yield from paths(each, f"{path}.{name}")

        every = (path for name, part in value.items() for path in paths(part, str(name)))
        return Document(dict(value), origin, dict.fromkeys(every, (origin, "")))

    def at(self, problem: str, about: str = "") -> str:
        """The problem, with file and line in front.

        The line is that of the field that the problem starts with ("figure.x: ..."), else of a word
        that it quotes, else of the field `about`. A document without places gives only its origin.
        """
        lead = problem.partition(": ")[0]
        # "latency.batches.0" has the line of "latency.batches" where that is a default.
        above = [lead.rsplit(".", cut)[0] for cut in range(lead.count(".") + 1)]
        quoted = re.findall(r"'([^']+)'", problem)
        found = (place for word in (*above, *quoted, about, "") for place in self._lines(word))
        return f"{next(found, self.origin)}: {problem}"

    def _lines(self, word: str) -> Iterator[str]:
        if word in self.places:
            yield self.places[word][0]
        elif word:
            for path, (place, text) in self.places.items():
                if word in (text, path.rpartition(".")[2]):
                    yield place

    def part(self, path: str) -> Document:
        """What stands at a dotted path, {} where nothing does."""
        value = self.value
        for name in path.split("."):
            value = value.get(name, {}) if isinstance(value, Mapping) else {}
        inside = f"{path}."
        places = {
            at.removeprefix(inside): place
            for at, place in self.places.items()
            if at.startswith(inside)
        }
        return Document(value, f"{self.origin}: {path}", places)

    def over(self, below: Document, nested: bool = False) -> Document:
        """`below` with this document's fields over it; if `nested`, inner mappings are merged."""
        taken: list[str] = []

        def merged(under: Mapping[str, Any], own: Mapping[str, Any], path: str) -> dict[str, Any]:
            both = dict(under)
            for name, value in own.items():
                there = under.get(name)
                if nested and isinstance(there, Mapping) and isinstance(value, Mapping):
                    both[name] = merged(there, value, f"{path}{name}.")
                else:
                    both[name] = value
                    taken.append(f"{path}{name}")
            return both

        value = merged(below.value, self.value, "")
        gone = tuple(f"{path}." for path in taken)
        kept = {at: place for at, place in below.places.items() if not f"{at}.".startswith(gone)}
        # The merged document as a whole has the place of `below`, if that has one.
        own = dict.fromkeys(self.value, (self.origin, "")) | dict(self.places)
        root = {"": below.places[""]} if "" in below.places else {}
        return Document(value, below.origin, {**kept, **own, **root})


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the scalars of YAML 1.2's core schema."""


_Loader.yaml_implicit_resolvers = {}


for _kind, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["", *"~nN"]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    (
        "int",
        r"[-+]?(?:0|[1-9][0-9]*|[1-9][0-9]{0,2}(?:_[0-9]{3})+)|0x[0-9a-fA-F]+",
        list("-+0123456789"),
    ),
    (
        "float",
        r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        list("-+0123456789."),
    ),
):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_kind}", re.compile(rf"^(?:{_pattern})$"), _first
    )


def read_yaml(path: Path) -> Any:
    """The value of `read_document`."""
    return read_document(path).value


def read_document(path: Path) -> Document:
    """The document in `path` by the rules of YAML 1.2. ConfigError where it is no valid YAML."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            # Reading a pipe would wait without end.
            kind = "a folder" if path.is_dir() else "a pipe or device"
            raise ConfigError([f"{path}: cannot be read: it is {kind}, no file"])
        if path.stat().st_size > LONGEST:
            raise ConfigError([f"{path}: more than {LONGEST:,} bytes are no configuration"])
        loader = _Loader(path.read_text(encoding="utf-8"))
        root = loader.get_single_node()
        places: dict[str, tuple[str, str]] = {}
        return Document(_value(loader, root, str(path), (), places), str(path), places)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = "" if mark is None else f":{mark.line + 1}"
        said = " ".join(filter(None, (error.context, error.problem)))
        raise ConfigError([f"{path}{line}: no valid YAML: {said}"]) from error
    except yaml.YAMLError as error:
        raise ConfigError([f"{path}: no valid YAML: {' '.join(str(error).split())}"]) from error
    except UnicodeDecodeError as error:
        raise ConfigError([f"{path}: no UTF-8 text: {error}"]) from error
    except RecursionError as error:
        raise ConfigError([f"{path}: nested more than {DEEPEST} deep"]) from error
    except OSError as error:
        leads = f" (a link to {path.readlink()})" if path.is_symlink() else ""
        raise ConfigError([f"{path}: cannot be read{leads}: {error.strerror}"]) from error


def _whole(text: str) -> str:
    """The text with surrogate pairs, as JSON escapes them, joined into whole characters.

    ValueError for a lone surrogate, which no file can hold.
    """
    if not any("\ud800" <= letter <= "\udfff" for letter in text):
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16")


def _value(
    loader: _Loader,
    node: yaml.Node | None,
    file: str,
    path: tuple[str, ...],
    places: dict[str, tuple[str, str]],
    line: int | None = None,
) -> Any:
    """The value of a node; its place, and those of all inside it, are added to `places`."""
    if node is None:
        return None

    def wrong(problem: str, where: yaml.Node = node) -> yaml.MarkedYAMLError:
        return yaml.MarkedYAMLError(problem=problem, problem_mark=where.start_mark)

    if len(path) > DEEPEST or len(places) > MOST:
        raise wrong(f"nested more than {DEEPEST} deep, or more than {MOST:,} values")
    written = node.value if isinstance(node, yaml.ScalarNode) else ""
    number = (node.start_mark.line if line is None else line) + 1
    places[".".join(path)] = (f"{file}:{number}", written)
    kind = node.tag.removeprefix("tag:yaml.org,2002:")
    if kind not in {"map", "seq", "null", "bool", "int", "float", "str"}:
        raise wrong(f"the tag {node.tag} has no meaning here")
    if isinstance(node, yaml.ScalarNode):
        try:
            value = loader.construct_object(node)
            return _whole(value) if isinstance(value, str) else value
        except ValueError as error:
            raise wrong(str(error)) from error
    if isinstance(node, yaml.SequenceNode):
        return [
            _value(loader, each, file, (*path, str(place)), places)
            for place, each in enumerate(node.value)
        ]
    found: dict[str, Any] = {}
    for key, each in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise wrong("a key is a list or a mapping; keys are text", key)
        if key.value in found:
            raise wrong(f"the key '{key.value}' occurs twice", key)
        if key.value == "<<":
            raise wrong("YAML 1.2 has no merge key '<<'; write the fields out", key)
        inside = (*path, key.value)
        try:
            name = _whole(key.value)
        except ValueError as error:
            raise wrong(str(error), key) from error
        found[name] = _value(loader, each, file, inside, places, key.start_mark.line)
    return found


def _describe(error: jsonschema.ValidationError) -> Iterator[str]:
    place = ".".join(str(part) for part in error.absolute_path)
    prefix = f"{place}: " if place else ""
    value, schema = error.instance, error.schema
    about = " ".join(str(schema.get("description", "")).split())
    expected = f". Expected: {about}" if about else ""
    short = shown(value)
    if error.validator == "additionalProperties":
        known = list(schema.get("properties", {}))
        for name in value:
            if name not in known:
                yield prefix + unknown("field", name, known)
    elif error.validator == "required":
        fields = schema.get("properties", {})
        # A misspelled field is reported once, as an unknown one.
        strangers = [name for name in value if name not in fields]
        meant = {near for name in strangers for near in difflib.get_close_matches(name, fields, 1)}
        for name in error.validator_value:
            if name not in value and name not in meant:
                meaning = fields.get(name, {}).get("description", "")
                yield f"{prefix}the field '{name}' is missing ({meaning})"
    elif error.validator == "enum":
        choices = ["null" if each is None else str(each) for each in error.validator_value]
        yield prefix + unknown("value", value, choices)
    elif error.validator == "format":
        yield f"{prefix}{short}: {FORMATS[error.validator_value][1]}"
    elif error.validator == "anyOf" and (branch := _meant(error)):
        for part in branch:
            yield from _describe(part)
    elif error.validator == "type" and isinstance(value, str) and NUMBER.fullmatch(value):
        yield f"{prefix}{short} is text, being in quotes: write it without them{expected}"
    elif error.validator in {"anyOf", "pattern"}:
        yield f"{prefix}{short} is not valid here{expected}"
    else:
        yield f"{prefix}{error.message.replace(repr(value), short)}{expected}"


def _meant(error: jsonschema.ValidationError) -> list[jsonschema.ValidationError]:
    """The errors of the only alternative whose type fits the value; [] if none or several fit."""
    branches: dict[int, list[jsonschema.ValidationError]] = {}
    for part in error.context:
        branches.setdefault(part.relative_schema_path[0], []).append(part)
    fitting = [
        parts
        for parts in branches.values()
        if not any(part.validator == "type" and not part.relative_path for part in parts)
    ]
    return fitting[0] if len(fitting) == 1 else []


def _with_defaults(document: Any, schema: Mapping[str, Any]) -> Any:
    if not isinstance(document, dict):
        return document
    filled = dict(document)
    for name, about in schema.get("properties", {}).items():
        if name in filled or "default" in about:
            value = filled[name] if name in filled else copy.deepcopy(about["default"])
            filled[name] = _with_defaults(value, about)
    return filled


# What JSON Schema cannot say: {format: (test of a value, what is meant)}.
FORMATS = {
    "name": (lambda value: not isinstance(value, str) or bool(NAME.fullmatch(value)), RULE),
    "line": (
        lambda value: not isinstance(value, str) or not (CONTROL.search(value) or value.isspace()),
        "expected is one line of text, neither blank nor with control or invisible characters",
    ),
}


def check(document: Document, schema: Mapping[str, Any]) -> dict[str, Any]:
    """The document's value with the schema's defaults; ConfigError lists every problem."""
    problems: list[str] = []
    filled = valid_part(document, schema, problems)
    if problems:
        raise ConfigError(problems)
    return filled


def valid_part(
    document: Document, schema: Mapping[str, Any], problems: list[str]
) -> dict[str, Any]:
    """As `check`, but problems are added to the list `problems`.

    Fields with problems get their defaults; lists keep their other items.
    """
    import jsonschema  # here: the facts of published models are read without it

    # Stricter than the standard, by which 2.0 is an integer and NaN within all bounds.
    types = jsonschema.Draft202012Validator.TYPE_CHECKER.redefine_many(
        {
            "integer": lambda _, value: type(value) is int and abs(value) <= LARGEST,
            "number": lambda _, value: type(value) in (int, float) and abs(value) <= LARGEST,
        }
    )
    validator = jsonschema.validators.extend(jsonschema.Draft202012Validator, type_checker=types)
    formats = jsonschema.FormatChecker(())
    formats.checkers = {name: (test, ()) for name, (test, _) in FORMATS.items()}
    found = validator(schema, format_checker=formats).iter_errors(document.value)
    errors = sorted(found, key=lambda error: [str(part) for part in error.absolute_path])
    problems += [document.at(text) for error in errors for text in _describe(error)]
    places = [tuple(error.absolute_path) for error in errors]
    given = document.value if isinstance(document.value, dict) else {}
    fields = {}
    for name in set(given) & set(schema["properties"]):
        inside = {place[1:2] for place in places if place[:1] == (name,)}
        if not inside:
            fields[name] = given[name]
        elif isinstance(given[name], list) and () not in inside:
            fields[name] = [v for at, v in enumerate(given[name]) if (at,) not in inside]
    return _with_defaults(fields, schema)


@contextmanager
def collecting(
    problems: list[str], document: Document | None = None, about: str = ""
) -> Iterator[None]:
    """Adds the problems of a ConfigError, a ValueError or a path to a list: one pass reports all.

    document  what the problems are about; it adds file and line. None if they have them already
    """
    try:
        yield
    except (ValueError, OSError, RuntimeError) as error:
        if isinstance(error, ConfigError):
            found = error.problems
        else:
            found = (str(error) if isinstance(error, ValueError) else path_problem(error, about),)
        problems += [document.at(each, about) if document else each for each in found]


def path_problem(error: OSError | RuntimeError, about: str = "") -> str:
    """The message about a path that cannot be used; any other RuntimeError is raised again."""
    # How pathlib reports an unknown home folder, and links that form a loop.
    known = ("Could not determine home", "Symlink loop")
    if isinstance(error, RuntimeError) and not str(error).startswith(known):
        raise error
    # The path, and so the message, may be very long.
    return f"{about}: {error!s:.200}" if about else f"{error!s:.200}"


@cache
def read_schema(name: str) -> dict[str, Any]:
    """The JSON schema `workflow/schemas/{name}.schema.yaml` of the repository."""
    return read_yaml(in_clone("workflow", "schemas", f"{name}.schema.yaml"))
