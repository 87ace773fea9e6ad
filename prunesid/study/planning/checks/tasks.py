"""The data of an lmms-eval task, from its YAML alone: loading lmms-eval takes half a minute."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

OURS = Path(__file__).resolve().parents[3] / "lmms" / "tasks"
# Readers of local files, which take the place of a data set's name.
READERS = frozenset({"parquet", "json", "csv", "imagefolder", "videofolder", "arrow"})


@dataclass(frozen=True)
class TaskData:
    """`repository` names a data set on the hub, or `files` are local ones.

    needs_token  whether the task insists on a hub token
    video        whether it brings videos
    metrics      names of what its answers are scored by
    """

    task: str
    repository: str | None
    files: tuple[Path, ...] = ()
    needs_token: bool = False
    video: bool = False
    metrics: tuple[str, ...] = ()


class _Loader(yaml.SafeLoader):
    """Leaves out what `!function` names: reading a task runs none of its code."""


_Loader.add_constructor("!function", lambda loader, node: None)


def task_data(name: str, folders: tuple[Path, ...] | None = None) -> list[TaskData]:
    """The data of a task, or of every task of a group. ValueError where there is no such task."""
    folders = folders if folders is not None else (OURS, *_lmms_folder())
    line = rf"^\s*(?:task|group)\s*:\s*[\"']?{re.escape(name)}[\"']?\s*(?:#.*)?$"
    wanted = re.compile(line, re.MULTILINE)
    texts = (each for folder in folders for each in _texts(folder))
    path = next((path for path, content in texts if wanted.search(content)), None)
    if path is None:
        raise ValueError(f"there is no lmms-eval task '{name}'")
    document = _document(path)
    if isinstance(document.get("task"), list):
        members = [m if isinstance(m, str) else m["task"] for m in document["task"]]
        return [data for member in members for data in task_data(member, folders)]
    options = document.get("dataset_kwargs") or {}
    source = str(document.get("dataset_path"))
    local = source in READERS
    return [
        TaskData(
            task=name,
            repository=None if local else source,
            files=tuple(map(Path, _files(options.get("data_files")))) if local else (),
            needs_token=bool(options.get("token")),
            video=bool(options.get("video")) or "video" in str(document.get("include", "")),
            metrics=tuple(str(each["metric"]) for each in document.get("metric_list") or ()),
        )
    ]


def known_data(name: str) -> list[TaskData]:
    """The task's data sets; [] if there is no such task, which `checks.data` reports."""
    try:
        return task_data(name)
    except ValueError:
        return []


def _files(given: Any) -> Iterator[str]:
    """The file names in `data_files`: one, a list, or a mapping of splits to these."""
    if isinstance(given, Mapping):
        for each in given.values():
            yield from _files(each)
    elif given is not None:
        yield from map(str, given if isinstance(given, list) else [given])


def _document(path: Path) -> dict[str, Any]:
    """A task's YAML on top of the one that it includes."""
    own = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    below = _document(path.parent / own["include"]) if own.get("include") else {}
    return {**below, **own}


@cache
def _texts(folder: Path) -> tuple[tuple[Path, str], ...]:
    found = sorted(folder.rglob("*.yaml"))
    return tuple((path, path.read_text(encoding="utf-8", errors="replace")) for path in found)


def _lmms_folder() -> tuple[Path, ...]:
    spec = importlib.util.find_spec("lmms_eval")
    if spec is None or not spec.submodule_search_locations:
        return ()
    return (Path(next(iter(spec.submodule_search_locations))) / "tasks",)
