"""Checksums of the files that a job leaves, so that one that is damaged later is made again.

The seal of a job is a hidden JSON file beside its first output. It holds the checksums of all its
outputs, and one of its own.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from prunesid.core.files import atomic, checksum, digest

_SUFFIX = ".seal"


def seal(outputs: Sequence[Path]) -> None:
    """Write the seal of a job that left these files and folders."""
    first = outputs[0]
    contents = {os.path.relpath(path, first.parent): _content(path) for path in outputs}
    _write(_seal_of(first), contents)


def is_intact(first: Path) -> bool:
    """Whether the first output of a job is what the job left."""
    return _read(_seal_of(first)).get(first.name) == _content(first)


def seal_again(first: Path) -> None:
    """Seal a job's outputs once more, after another job has made the first of them again."""
    others = [name for name in _read(_seal_of(first)) if name != first.name]
    seal([first, *(first.parent / name for name in others)])


def drop_damaged_files(
    folder: Path, unread: Collection[str] = (), read: Callable[[Path], str] = checksum
) -> list[Path]:
    """Delete the outputs anywhere below `folder` that are not what jobs left; return them.

    Snakemake makes them again. A first output goes as well where its seal cannot be read. Outputs
    with a name in `unread` are not looked at; of the others' files, `read` gives the checksums.
    """
    seals = sorted(folder.rglob(f".*{_SUFFIX}"))
    return [path for sealed in seals for path in _drop(sealed, unread, read)]


def drop_damaged_outputs(first: Path) -> list[Path]:
    """As `drop_damaged_files`, for the one job with this first output."""
    return _drop(_seal_of(first), (), checksum)


def _drop(sealed: Path, unread: Collection[str], read: Callable[[Path], str]) -> list[Path]:
    damaged = _damaged(sealed, unread, read)
    for path in damaged:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    if damaged:
        # The job that makes them again seals them, perhaps with files of its own alone.
        left = {n: c for n, c in _read(sealed).items() if _named(sealed, n) not in damaged}
        if left:
            _write(sealed, left)
        else:
            sealed.unlink(missing_ok=True)
    return damaged


def _seal_of(first: Path) -> Path:
    return first.with_name(f".{first.name}{_SUFFIX}")


def _named(sealed: Path, name: str) -> Path:
    """The output that a seal has by that name."""
    return Path(os.path.normpath(sealed.parent / name))


def _write(sealed: Path, contents: Mapping[str, str]) -> None:
    text = json.dumps({"contents": contents, "checksum": digest(contents)}, indent=1)
    with atomic(sealed) as temporary:
        temporary.write_text(text + "\n")


def _read(sealed: Path) -> dict[str, str]:
    """The checksums that a seal holds, by the outputs' names; {} if it cannot be read."""
    try:
        found = json.loads(sealed.read_bytes())
        contents: dict[str, str] = found["contents"]
        whole = digest(contents) == found["checksum"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return {}
    return contents if whole else {}


def _damaged(sealed: Path, unread: Collection[str], read: Callable[[Path], str]) -> list[Path]:
    first = sealed.with_name(sealed.name.removeprefix(".").removesuffix(_SUFFIX))
    contents = _read(sealed)
    if not contents:
        return [first] if first.exists() else []
    paths = {_named(sealed, name): content for name, content in contents.items()}
    return [
        path for path, content in paths.items()
        if path.name not in unread and path.exists()
        and _content(path, read) != content and _content(path, checksum) != content
    ]  # fmt: skip


def _content(path: Path, read: Callable[[Path], str] = checksum) -> str:
    """The checksum of a file, or of a folder with all that is in it but what Snakemake adds."""
    if not path.is_dir():
        return read(path)
    files = sorted(each for each in path.rglob("[!.]*") if each.is_file())
    return digest({each.relative_to(path).as_posix(): read(each) for each in files})
