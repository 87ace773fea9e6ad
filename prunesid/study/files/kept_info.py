"""What tables and pictures show of kept tokens, as `kept.save_kept` wrote it; needs no torch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open

from prunesid.core.record import MEMBERS

_MEMBERS = f"info.{MEMBERS}"


def load_info(paths: Sequence[Path]) -> dict[str, NDArray[Any]]:
    """The count and the info (B, ...) of the shards of a benchmark, without members.

    Values per patch (B, T) are padded with -1 or False where shards differ in T.
    """
    parts = [_read(path) for path in paths]
    return {name: _cat_padded([part[name] for part in parts]) for name in parts[0]}


def read_places(path: Path) -> dict[str, NDArray[Any]]:
    """For pictures: index (B, N) and, as far as stored, group, merged_into, selected, members."""
    fields = ("index", "info.group", "info.merged_into", "info.selected", _MEMBERS)
    with safe_open(path, "np") as file:
        there = set(file.keys())
        return {f.removeprefix("info."): file.get_tensor(f) for f in fields if f in there}


def _read(path: Path) -> dict[str, NDArray[Any]]:
    with safe_open(path, "np") as file:
        return {
            name.removeprefix("info."): file.get_tensor(name)
            for name in file.keys()  # noqa: SIM118 (no mapping)
            if (name.startswith("info.") and name != _MEMBERS) or name == "count"
        }


def _cat_padded(arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
    if len({array.shape[1:] for array in arrays}) == 1:
        return np.concatenate(arrays)
    width = max(array.shape[1] for array in arrays)
    value = 0 if arrays[0].dtype == bool else -1
    pads = [((0, 0), (0, width - array.shape[1])) for array in arrays]
    return np.concatenate(
        [np.pad(a, pad, constant_values=value) for a, pad in zip(arrays, pads, strict=True)]
    )
