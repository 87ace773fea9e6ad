"""The weights of a model's folder, by the headers of its safetensors, which are quick to read."""

from __future__ import annotations

import json
from math import prod
from pathlib import Path
from typing import Any

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
# Quantized weights are packed, and have other shapes.
PLAIN = ("F64", "F32", "F16", "BF16")
Shape = tuple[int, ...]


def fields_of(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None where it is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def shards(index: Path) -> list[str]:
    """The weight files that an index names, or SINGLE without an index; ValueError for no files."""
    if not index.is_file():
        return [SINGLE]
    named = (fields_of(index) or {}).get("weight_map")
    files = sorted(set(map(str, named.values()))) if isinstance(named, dict) else []
    if not files or not all(name.endswith(".safetensors") for name in files):
        raise ValueError(f"{index} names no weights")
    return files


def shapes(file: Path) -> dict[str, Shape | None]:
    """{name: shape} of a file's tensors; None for the shape of a packed one."""
    with file.open("rb") as opened:
        header = json.loads(opened.read(int.from_bytes(opened.read(8), "little")))
    return {
        name: tuple(tensor["shape"]) if tensor["dtype"] in PLAIN else None
        for name, tensor in header.items()
        if name != "__metadata__"
    }


def stored(folder: Path) -> int | None:
    """How many weights a folder holds; None where they are packed, or cannot be read."""
    count = 0
    try:
        for name in shards(folder / INDEX):
            for shape in shapes(folder / name).values():
                if shape is None:
                    return None
                count += prod(shape)
    except (
        OSError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        MemoryError,
        OverflowError,
    ):
        return None  # a check of the folder says what is wrong
    return count
