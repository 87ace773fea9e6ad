"""The question of each row of a selection, where tokens are chosen by image and question.

A selection's file says so in its metadata.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors import safe_open

_NAME = "asked"


@dataclass(frozen=True)
class AskedRow:
    """One of the inputs: a question on an image.

    questions  the ids of the questions with this text
    row        the row of the image's first crop
    """

    image: str
    context: str
    questions: tuple[str, ...]
    row: int


def to_metadata(rows: tuple[AskedRow, ...]) -> Mapping[str, str]:
    """The text that `asked_rows` reads, for a safetensors file."""
    return {_NAME: json.dumps([asdict(row) for row in rows])}


def asked_rows(path: Path) -> tuple[AskedRow, ...]:
    """Of a selection's file; () where its rows are those of the images."""
    with safe_open(path, "np") as file:
        found = (file.metadata() or {}).get(_NAME, "[]")
    return tuple(
        AskedRow(**row | {"questions": tuple(row["questions"])}) for row in json.loads(found)
    )
