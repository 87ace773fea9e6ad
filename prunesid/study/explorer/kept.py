"""What arms keep of the inputs of a benchmark, in blocks of inputs that a page loads one by one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prunesid.core.record import MEMBERS
from prunesid.study.explorer.columns import numbers, packed, write_script
from prunesid.study.files.kept_info import read_places
from prunesid.study.files.question_rows import asked_rows

BLOCK = 64


@dataclass(frozen=True)
class Place:
    """An input's crops: its shard, their rows there, and the patches of each."""

    shard: int
    rows: tuple[int, ...]
    sizes: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class _Part:
    """A shard's file: values (B, T) per patch by name, and {question: row} if rows are theirs.

    members is (B, N, M) as `Kept.info` has it; None if merged tokens share no patches.
    """

    values: Mapping[str, NDArray[Any]]
    members: NDArray[Any] | None
    asked: Mapping[str, int]


def write_kept(
    folder: Path,
    name: str,
    paths: Sequence[Path],
    places: Sequence[Place],
    questions: Sequence[Sequence[str]],
) -> None:
    """Write `name`-0.js, `name`-1.js, ... below `folder`, one per block of inputs.

    paths      the arm's file of every shard
    places     the place of each input
    questions  the ids of the questions on each input

    A block holds sets of patches, one per input, or one per question text if the arm chooses by
    it. A set is the patches of all crops in a row, padded to `width`.

        mask    bits of the kept ones; `merged`: of the centers of merged tokens, if there are any
        of      the set of each question of the block, if sets belong to questions
        groups  the name of a script with the group of every patch plus 1, or the merged token that
                it goes into; 0 for none. Only if there are any; arms that group alike share it
        members if merged tokens share patches: bits of the patches of each token, in the order of
                the sets. `ends` has the number of tokens up to the end of each set, and `centers`
                the patch plus 1 that a token stands for, 0 for none
    """
    parts = [_read(path, max(max(p.sizes) for p in places)) for path in paths]
    for number, first in enumerate(range(0, len(places), BLOCK)):
        own = slice(first, first + BLOCK)
        document = _block(folder, name, parts, places[own], questions[own])
        write_script(folder, f"{name}-{number}", document)


def write_left(
    folder: Path,
    name: str,
    left: Mapping[str, Sequence[bytes]],
    places: Sequence[Place],
    questions: Sequence[Sequence[str]],
) -> None:
    """Write `name`-0.js, ... as `write_kept` does, for an arm inside the language model.

    left  `Answer.left` of each question: per crop, how many layers the token of a patch enters

    A block holds the numbers of each question of the block in a row, padded to `width`.
    """
    for number, first in enumerate(range(0, len(places), BLOCK)):
        own = slice(first, first + BLOCK)
        width = max(sum(place.sizes) for place in places[own])
        rows = [
            b"".join(
                crop.ljust(size, b"\0") for crop, size in zip(left[each], place.sizes, strict=True)
            ).ljust(width, b"\0")
            for place, asked in zip(places[own], questions[own], strict=True)
            for each in asked
        ]
        layers = numbers(np.frombuffer(b"".join(rows), np.uint8))
        write_script(folder, f"{name}-{number}", {"width": width, **layers})


def _block(
    folder: Path, name: str, parts: Sequence[_Part], places: Sequence[Place],
    questions: Sequence[Sequence[str]],
) -> dict[str, Any]:  # fmt: skip
    width = max(sum(place.sizes) for place in places)
    sets: dict[tuple[int, int], int] = {}
    of, rows = [], list[tuple[Place, int]]()
    for place, asked in zip(places, questions, strict=True):
        known = parts[place.shard].asked
        for first in [known[question] for question in asked] if known else [place.rows[0]]:
            key = place.shard, first
            if key not in sets:
                sets[key] = len(sets)
                rows.append((place, first))
            of.append(sets[key])
    found: dict[str, Any] = {"width": width}
    fields = {field for part in parts for field in part.values}
    values = {
        field: np.stack([_set(parts, field, place, first, width) for place, first in rows])
        for field in fields
    }
    for field in ("mask", "merged"):
        if field in values and (field == "mask" or values[field].any()):
            found[field] = packed(np.packbits(values[field], axis=1, bitorder="little"))
    if "group" in values:
        groups = values["group"].astype(np.int64)
        content = hashlib.sha256(groups.tobytes() + bytes([width % 256])).hexdigest()[:16]
        found["groups"] = f"{Path(name).parent.parent}/groups/{content}"
        if not (folder / f"{found['groups']}.js").exists():
            write_script(folder, found["groups"], {"width": width, **numbers(groups)})
    if any(part.members is not None for part in parts):
        found |= _members(parts, rows, width)
    if any(part.asked for part in parts):
        found["of"] = numbers(np.array(of, np.int64))
    return found


def _members(
    parts: Sequence[_Part], rows: Sequence[tuple[Place, int]], width: int
) -> dict[str, Any]:
    """The patches of every merged token of the sets, whose places and first rows are `rows`."""
    bits, centers, ends = [np.zeros((0, width), bool)], list[int](), list[int]()
    for place, first in rows:
        part, moved, before = parts[place.shard], first - place.rows[0], 0
        for row, size in zip(place.rows, place.sizes, strict=True):
            if part.members is None:  # all of its images are kept whole
                break
            tokens = part.members[row + moved].astype(np.int64)
            tokens = tokens[tokens[:, 0] >= 0]
            token, column = np.nonzero(tokens >= 0)
            own = np.zeros((len(tokens), width), bool)
            own[token, before + tokens[token, column]] = True
            bits.append(own)
            stands = "merged" in part.values
            centers += [before + int(patch) + 1 if stands else 0 for patch in tokens[:, 0]]
            before += size
        ends.append(len(centers))
    return {
        "members": packed(np.packbits(np.concatenate(bits), axis=1, bitorder="little")),
        "centers": numbers(np.array(centers, np.int64)),
        "ends": numbers(np.array(ends, np.int64)),
    }


def _set(parts: Sequence[_Part], field: str, place: Place, first: int, width: int) -> NDArray[Any]:
    """(width,) values of an input's crops, of which `first` is the first one's row."""
    values = parts[place.shard].values.get(field)
    if values is None:  # all images of its shard are kept whole
        return np.zeros(width, bool)
    moved = first - place.rows[0]
    own = [values[row + moved, :size] for row, size in zip(place.rows, place.sizes, strict=True)]
    flat = np.concatenate(own)
    return np.pad(flat, (0, width - len(flat)))


def _read(path: Path, patches: int) -> _Part:
    stored = read_places(path)
    index = stored["index"]
    mask = np.zeros((len(index), patches), dtype=bool)
    row, column = np.nonzero(index >= 0)
    mask[row, index[row, column]] = True
    values = {"mask": mask}
    if "selected" in stored:
        values["merged"] = _wide(stored["selected"], patches) & ~mask
    group = stored.get("group", stored.get("merged_into"))
    if group is not None:
        values["group"] = _wide(group.astype(np.int64) + 1, patches)
    return _Part(values, stored.get(MEMBERS), dict(_asked(path)))


def _wide(values: NDArray[Any], patches: int) -> NDArray[Any]:
    return np.pad(values, ((0, 0), (0, max(0, patches - values.shape[1]))))


def _asked(path: Path) -> Iterator[tuple[str, int]]:
    for asked in asked_rows(path):
        yield from ((question, asked.row) for question in asked.questions)
