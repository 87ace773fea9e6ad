"""The data sets of a study's benchmarks: rendered here, local files, or on the hub."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from prunesid.pocket.benchmarks import BENCHMARKS as RENDERED
from prunesid.study.config.hub_models import TaskSize, hub_tasks
from prunesid.study.planning.checks.finding import MISSING, OK, Finding
from prunesid.study.planning.checks.hub import DATASET, Hub, downloadable
from prunesid.study.planning.checks.tasks import TaskData, known_data, task_data


def check_data(hub: Hub, tasks: Iterable[str]) -> Iterator[Finding]:
    """A line for each task, and the bytes that are still to be downloaded for it."""
    seen: set[str | None] = {None}
    for name in dict.fromkeys(tasks):
        if name in RENDERED:
            yield Finding(OK, f"data of {name}", "rendered by the study")
            continue
        try:
            parts = task_data(name)
        except ValueError as error:
            yield Finding(MISSING, f"data of {name}", str(error), "check the benchmark's file")
            continue
        for part in parts:
            what = f"data of {part.task}"
            if part.repository is None:
                yield _local(what, part)
            elif part.repository in seen:
                yield Finding(OK, what, f"{part.repository}, as above")
            else:
                yield _on_hub(hub, what, part.task, part.repository)
            seen.add(part.repository)


def check_token(hub: Hub, tasks: Iterable[str]) -> Iterator[Finding]:
    """The hub token, where lmms-eval's tasks insist on one."""
    fetched = [name for name in dict.fromkeys(tasks) if name not in RENDERED]
    insisting = [part for name in fetched for part in known_data(name) if part.needs_token]
    if not insisting:
        return
    if hub.has_token:
        detail = f"there is one, which {len(insisting)} tasks insist on"
        yield Finding(OK, "hub token", detail)
    elif hub.offline and all(
        p.repository is None or hub.has_dataset(p.repository) for p in insisting
    ):
        yield Finding(OK, "hub token", "none; everything is in the local cache")
    else:
        detail = f"none, and lmms-eval loads {', '.join(p.task for p in insisting)} with one"
        remedy = "`hf auth login`, or HF_TOKEN; any account's read token will do"
        yield Finding(MISSING, "hub token", detail, remedy)


def _local(what: str, part: TaskData) -> Finding:
    lacking = [file for file in part.files if not file.is_file()]
    if lacking:
        remedy = "docs/benchmarks.md says where its files come from and which command lays them out"
        return Finding(MISSING, what, f"there is no {', '.join(map(str, lacking))}", remedy)
    unseen = [video for file in part.files for video in _videos(file) if not video.is_file()]
    if unseen:
        detail = f"{len(unseen)} of its videos, such as {unseen[0]}"
        return Finding(MISSING, what, detail, "docs/benchmarks.md says where they come from")
    return Finding(OK, what, ", ".join(map(str, part.files)))


def _videos(file: Path) -> list[Path]:
    """The videos that a file of questions names."""
    import pyarrow.parquet as pq

    if file.suffix != ".parquet" or "video" not in pq.read_schema(file).names:
        return []
    names = pq.read_table(file, columns=["video"])["video"].unique().to_pylist()
    return [Path(name) for name in names]


def _on_hub(hub: Hub, what: str, task: str, name: str) -> Finding:
    if hub.has_dataset(name):
        return Finding(OK, what, f"{name}, in the local cache")
    known = hub_tasks().get(task, TaskSize()).download
    here = "not in the local cache"
    repository = downloadable(hub, what, name, DATASET, here, float(known or 0))
    if isinstance(repository, Finding):
        return repository
    # A repository may hold more than the task reads.
    size = float(repository.size if known is None else min(known, repository.size))
    return Finding(OK, what, f"{name}: about {size / 1e9:,.1f} GB to download", download=size)
