"""Atomic writing of files, and digests of values and files."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
import os
import platform
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType

DIGEST_LENGTH = 16
DAY = 24 * 3600.0
_LEFT = re.compile(r"\.tmp-(?P<host>.+)-(?P<process>\d+)-[0-9a-z_]{8}(\..*)?")


def temporary_prefix() -> str:
    """The prefix by which `sweep` recognizes this process's temporary files and folders."""
    return f".tmp-{platform.node()}-{os.getpid()}-"


@contextmanager
def atomic(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path next to `path`, with its suffix; on success it is renamed to `path`.

    Missing folders are made. If the block raises, the temporary file is deleted and `path` stays
    as it was.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(target)
    try:
        yield temporary
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def temporary_beside(target: Path) -> Path:
    """A name for a temporary file in the folder of `target`, with its suffix."""
    return target.with_name(f"{temporary_prefix()}{uuid.uuid4().hex[:8]}{target.suffix}")


def sweep(folder: Path, seconds: float = DAY) -> list[Path]:
    """Delete the temporary files and folders that killed processes left, and return them.

    Files of this machine are deleted once their process is dead. Files of another machine are
    deleted once nothing was written to them for `seconds` seconds.
    """
    swept = []
    for root, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            found = _LEFT.fullmatch(name)
            if found is None:
                continue
            path = Path(root, name)
            if found["host"] == platform.node():
                left = not _runs(int(found["process"]))
            else:
                left = time.time() - _last_written(path) > seconds
            if left:
                swept.append(path)
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)
        folders[:] = [name for name in folders if not _LEFT.fullmatch(name)]
    return swept


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _last_written(path: Path) -> float:
    """Time of the last write to a file or anything in a folder; now if it was just deleted."""
    times = []
    for each in (path, *path.rglob("*")):
        with suppress(FileNotFoundError):
            times.append(each.stat().st_mtime)
    return max(times, default=time.time())


def write_changed(path: Path, text: str) -> None:
    """Write a file unless it holds this text already; so its time is that of the last change."""
    try:
        same = path.read_bytes() == text.encode()
    except FileNotFoundError:
        same = False
    if not same:
        with atomic(path) as temporary:
            temporary.write_text(text, encoding="utf-8")


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


def checksum(path: str | os.PathLike[str]) -> str:
    """The SHA-256 of the file's bytes, in 64 hex digits."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def file_digest(path: str | os.PathLike[str]) -> str:
    """The first 16 hex digits of the file's `checksum`."""
    return checksum(path)[:DIGEST_LENGTH]


def source_files(module: ModuleType | str) -> list[Path]:
    """The source file of a module, given itself or by name; for a package, all files below it."""
    loaded = importlib.import_module(module) if isinstance(module, str) else module
    if loaded.__file__ is None:
        raise ValueError(f"module {loaded.__name__} has no source file")
    origin = Path(loaded.__file__)
    return sorted(origin.parent.rglob("*.py")) if hasattr(loaded, "__path__") else [origin]
