"""Tables that name the entries of the store which hold the results of a stage, arm by arm."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from prunesid.core.files import atomic
from prunesid.study.provenance.store import Store


def write_keys(keys: Mapping[str, str], output: Path) -> None:
    """{arm: key of the store} as JSON."""
    with atomic(output) as temporary:
        temporary.write_text(json.dumps(dict(keys), indent=1) + "\n")


def read_keys(path: Path) -> dict[str, str]:
    """The keys that `write_keys` wrote."""
    return json.loads(path.read_text())


def read_shards(paths: Sequence[Path]) -> dict[str, list[str]]:
    """{arm: its keys}, one for every shard with inputs; `paths` are the shards' tables of keys."""
    found: dict[str, list[str]] = {}
    for path in paths:
        for arm, key in read_keys(path).items():
            found.setdefault(arm, []).append(key)
    return found


def drop_damaged(paths: Iterable[Path], store: Store) -> list[Path]:
    """Remove the tables that name a missing or damaged entry of the store, and return them.

    Their stage runs again then, and computes only the missing entries.
    """
    damaged = [path for path in paths if path.is_file() and not _is_whole(path, store)]
    for path in damaged:
        path.unlink()
    return damaged


def _is_whole(path: Path, store: Store) -> bool:
    try:
        keys = read_keys(path)
    except ValueError:
        return False
    return all(key in store for key in keys.values())
