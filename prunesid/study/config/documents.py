"""Reading and checking YAML: one reader, one validator, and messages that name the choices.

YAML 1.1 reads a bare `off` or `no` as false and `1e-3` as text. `threshold: [scaled, off]` would
then name a method that does not exist, so documents are read by the rules of YAML 1.2 and a key
that occurs twice is an error.
"""

import copy
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from prunesid.core.registry import unknown

SCHEMAS = Path("workflow") / "schemas"


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
        meaning = {name: fields.get(name, {}).get("description", "") for name in missing}
        return [f"{prefix}the field '{name}' is missing ({meaning[name]})" for name in missing]
    if error.validator == "enum":
        return [prefix + unknown("value", value, error.validator_value)]
    about = " ".join(str(schema.get("description", "")).split())
    if error.validator in {"anyOf", "oneOf", "pattern"}:
        return [f"{prefix}{value!r} is not valid here. Expected: {about}"]
    return [f"{prefix}{error.message}" + (f". Expected: {about}" if about else "")]


def _with_defaults(document: Any, schema: Mapping[str, Any]) -> Any:
    if isinstance(document, dict):
        filled = dict(document)
        for name, field in schema.get("properties", {}).items():
            if name not in filled and "default" in field:
                filled[name] = copy.deepcopy(field["default"])
            if name in filled:
                filled[name] = _with_defaults(filled[name], field)
        return filled
    return document


def check(document: Any, schema: Mapping[str, Any], origin: str) -> tuple[Any, list[str]]:
    """`document` with the schema's defaults filled in, and every problem, each led by `origin`."""
    validator = jsonschema.Draft202012Validator(schema)
    errors = sorted(
        validator.iter_errors(document), key=lambda e: [str(p) for p in e.absolute_path]
    )
    problems = [f"{origin}: {text}" for error in errors for text in _describe(error)]
    return (document if problems else _with_defaults(document, schema)), problems


def read_schema(name: str, root: Path) -> dict[str, Any]:
    """The JSON schema `workflow/schemas/{name}.schema.yaml` below `root`."""
    return read_yaml(root / SCHEMAS / f"{name}.schema.yaml")
