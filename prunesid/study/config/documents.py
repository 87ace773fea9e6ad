"""Reading and checking YAML: one reader, one validator, and messages that name the choices.

YAML 1.1 reads a bare `off` or `no` as false and `1e-3` as text. `threshold: [scaled, off]` would
then name a method that does not exist, so documents are read by the rules of YAML 1.2 and a key
that occurs twice is an error.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from prunesid.core.registry import unknown
from prunesid.study.clone import in_clone

if TYPE_CHECKING:
    import jsonschema


class ConfigError(ValueError):
    """Everything that is wrong with a configuration, found in one pass; `problems` lists it."""

    def __init__(self, problems: Iterable[str]):
        self.problems = tuple(dict.fromkeys(problems))
        count = len(self.problems)
        head = "1 problem" if count == 1 else f"{count} problems"
        super().__init__(
            f"{head} in the configuration:\n" + "\n".join(f"  - {p}" for p in self.problems)
        )


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the booleans and floats of YAML 1.2, and unique keys."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":bool", ":float"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^(?:[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
    list("-+0123456789."),
)


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [loader.construct_object(key) for key, _ in node.value]
    twice = sorted({str(key) for key in keys if keys.count(key) > 1})
    if twice:
        raise yaml.constructor.ConstructorError(
            None, None, f"the key '{twice[0]}' occurs twice", node.start_mark
        )
    return {
        key: loader.construct_object(value, deep=True)
        for key, (_, value) in zip(keys, node.value, strict=True)
    }


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


def read_yaml(path: Path) -> Any:
    """The document in `path` by the rules of YAML 1.2. ConfigError where it is no valid YAML."""
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except yaml.YAMLError as error:
        raise ConfigError([f"{path}: {' '.join(str(error).split())}"]) from error


def _describe(error: jsonschema.ValidationError) -> list[str]:
    place = ".".join(str(part) for part in error.absolute_path)
    prefix = f"{place}: " if place else ""
    value, schema = error.instance, error.schema
    if error.validator == "additionalProperties":
        known = list(schema.get("properties", {}))
        return [prefix + unknown("field", name, known) for name in value if name not in known]
    if error.validator == "required":
        missing = [name for name in error.validator_value if name not in value]
        fields = schema.get("properties", {})
        meaning = [fields.get(name, {}).get("description", "") for name in missing]
        named = zip(missing, meaning, strict=True)
        return [f"{prefix}the field '{name}' is missing ({about})" for name, about in named]
    if error.validator == "enum":
        return [prefix + unknown("value", value, error.validator_value)]
    about = " ".join(str(schema.get("description", "")).split())
    if error.validator in {"anyOf", "oneOf", "pattern"}:
        return [f"{prefix}{value!r} is not valid here. Expected: {about}"]
    return [f"{prefix}{error.message}" + (f". Expected: {about}" if about else "")]


def _with_defaults(document: Any, schema: Mapping[str, Any]) -> Any:
    if not isinstance(document, dict):
        return document
    filled = dict(document)
    for name, field in schema.get("properties", {}).items():
        if name in filled or "default" in field:
            value = filled[name] if name in filled else copy.deepcopy(field["default"])
            filled[name] = _with_defaults(value, field)
    return filled


def check(document: Any, schema: Mapping[str, Any], origin: str) -> Any:
    """`document` with the schema's defaults filled in.

    ConfigError lists every problem, each led by `origin`.
    """
    import jsonschema  # here: the facts of published models are read without it

    found = jsonschema.Draft202012Validator(schema).iter_errors(document)
    errors = sorted(found, key=lambda error: [str(part) for part in error.absolute_path])
    if errors:
        raise ConfigError(f"{origin}: {text}" for error in errors for text in _describe(error))
    return _with_defaults(document, schema)


@contextmanager
def collecting(problems: list[str]) -> Iterator[None]:
    """Adds the problems of a ConfigError to a list, so that one pass reports them all."""
    try:
        yield
    except ConfigError as error:
        problems += error.problems


def read_schema(name: str) -> dict[str, Any]:
    """The JSON schema `workflow/schemas/{name}.schema.yaml` of the repository."""
    return read_yaml(in_clone("workflow", "schemas", f"{name}.schema.yaml"))
