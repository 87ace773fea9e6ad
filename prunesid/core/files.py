"""Atomic writing of files, and digests of values and files."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

DIGEST_LENGTH = 16


@contextmanager
def atomic(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path next to `path`, with its suffix; on success it is renamed to `path`.

    Missing folders are made. If the block raises, the temporary file is deleted and `path` stays
    as it was.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.stem}.{uuid.uuid4().hex}{target.suffix}")
    try:
        yield temporary
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _plain(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"no canonical JSON for {type(value).__name__}: {value!r}")


def digest(value: object) -> str:
    """16 hex digits of the SHA-256 of `value` as canonical JSON (sorted keys, no spaces).

    Dataclasses become objects, sets sorted lists, paths strings. TypeError on other values that
    JSON cannot express, ValueError on NaN.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_LENGTH]


def file_digest(path: str | os.PathLike[str]) -> str:
    """16 hex digits of the SHA-256 of the file's bytes."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:DIGEST_LENGTH]


def source_files(module: ModuleType | str) -> list[Path]:
    """The source file of a module, given itself or by name; for a package, all files below it."""
    loaded = importlib.import_module(module) if isinstance(module, str) else module
    if loaded.__file__ is None:
        raise ValueError(f"module {loaded.__name__} has no source file")
    origin = Path(loaded.__file__)
    return sorted(origin.parent.rglob("*.py")) if hasattr(loaded, "__path__") else [origin]
