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


def with_blocks(document: Mapping[str, Any], depth: int | None) -> tuple[dict[str, Any], list[str]]:
    """An ablation's document with every layer as a block's number, and what is wrong with them.

    Of settings that were written differently and become the same, the first stays.
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

    resolved = dict(document)
    for part in ("vary", "across"):
        resolved[part] = settings(document[part])
    resolved["base"] = setting(document["base"])
    if document["reference"] is not None:
        resolved["reference"] = setting(document["reference"])
    if AXIS in document["labels"]:
        named = {_written(text(k)): v for k, v in document["labels"][AXIS].items()}
        labels = {text(number(value)): label for value, label in named.items()}
        resolved["labels"] = {**document["labels"], AXIS: labels}
    return resolved, problems


def _written(key: str) -> int | str | None:
    """The value of a label's key; YAML and JSON write keys as they like."""
    if key == text(None):
        return None
    return int(key) if re.fullmatch(r"-?\d+", key) else key


def _distinct(written: Sequence[Any], resolved: Iterable[Any]) -> list[Any]:
    """The resolved items without those that only became equal to an earlier one.

    What was written twice stays, to be reported as such.
    """
    kept: list[tuple[Any, Any]] = []
    for item, given in zip(resolved, written, strict=True):
        twins = [as_written for other, as_written in kept if _bare(other) == _bare(item)]
        if not twins or _bare(twins[0]) == _bare(given):
            kept.append((item, given))
    return [item for item, _ in kept]


def _bare(item: Any) -> Any:
    """A setting without its label, which does not tell it from another."""
    return {k: v for k, v in item.items() if k != "label"} if isinstance(item, Mapping) else item
