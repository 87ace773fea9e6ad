"""The axis `layer`: blocks of the vision tower, written so that they fit a tower of any depth.

    layer: [0, 8/24, -1]

is the first block, the one a third of the way up, and the last: blocks 0, 8 and 23 of 24 and blocks
0, 4 and 11 of 12. A number from 0 counts from the first block, one below 0 from the last (-2 is the
block whose output LLaVA-1.5 uses, at any depth), `l/n` is block l of n, scaled.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from prunesid.study.config.arm import text
from prunesid.study.config.documents import ConfigError

AXIS = "layer"
FORMS = "a block from 0, one below 0 counted from the last (-1), or block l of n scaled ('l/n')"


def block(value: object, depth: int | None) -> int | None:
    """The 0-based block of a tower of `depth` blocks that `value` names; None stays None.

    ValueError where it names none, or where it is relative and the depth is not known (None).
    """
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        if value >= 0 and (depth is None or value < depth):
            return value
        if value < 0 and depth is not None and value >= -depth:
            return depth + value
    share = re.fullmatch(r"(\d+)/(\d+)", value) if isinstance(value, str) else None
    if share and int(share[1]) < int(share[2]) and depth is not None:
        return int(share[1]) * depth // int(share[2])
    relative = share is not None or (isinstance(value, int) and value < 0)
    if depth is None and relative:
        raise ValueError(
            f"layer: {value!r} depends on the number of vision blocks, which the model's "
            "config.json would have to state"
        )
    blocks = "" if depth is None else f" of the model's {depth} vision blocks"
    raise ValueError(f"layer: {value!r} is none{blocks}. Write {FORMS}")


def with_blocks(document: Mapping[str, Any], depth: int | None) -> dict[str, Any]:
    """An ablation's document with every layer as a block's number.

    Of settings that were written differently and become the same, the first stays. ConfigError
    lists every layer that is none.
    """
    problems: list[str] = []

    def number(value: object) -> object:
        try:
            return block(value, depth)
        except ValueError as error:
            problems.append(str(error))
            return value

    def setting(values: Mapping[str, Any]) -> dict[str, Any]:
        return {a: number(v) if a == AXIS else v for a, v in values.items()}

    def settings(varied: Any) -> Any:
        if not isinstance(varied, Mapping):
            return _distinct(varied, map(setting, varied))
        return {a: _distinct(v, map(number, v)) if a == AXIS else v for a, v in varied.items()}

    resolved = {**document, "base": setting(document["base"])}
    resolved |= {part: settings(document[part]) for part in ("vary", "across")}
    resolved["except"] = [
        {a: [number(v) for v in values] if a == AXIS else values for a, values in rule.items()}
        for rule in document["except"]
    ]
    if document["reference"] is not None:
        resolved["reference"] = setting(document["reference"])
    if AXIS in document["labels"]:
        labels = {text(number(_written(k))): v for k, v in document["labels"][AXIS].items()}
        resolved["labels"] = {**document["labels"], AXIS: labels}
    if problems:
        raise ConfigError(problems)
    return resolved


def _written(key: object) -> int | str | None:
    """The value of a label's key; YAML and JSON write keys as they like."""
    written = text(key)
    if written == text(None):
        return None
    return int(written) if re.fullmatch(r"-?\d+", written) else written


def _distinct(written: Sequence[Any], resolved: Iterable[Any]) -> list[Any]:
    """The resolved items without those that became equal to an earlier one by being resolved.

    An item that was written twice stays, so that it can be reported.
    """
    kept: list[tuple[Any, Any]] = []
    for pair in zip(resolved, written, strict=True):
        item, given = map(_bare, pair)
        twins = [_bare(as_written) for other, as_written in kept if _bare(other) == item]
        if not twins or twins[0] == given:
            kept.append(pair)
    return [item for item, _ in kept]


def _bare(item: Any) -> Any:
    """A setting without its label: settings that differ in the label alone are the same."""
    return {k: v for k, v in item.items() if k != "label"} if isinstance(item, Mapping) else item
