"""The data sets of a study's benchmarks: rendered here, local files, or on the hub."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from prunesid.pocket.benchmarks import BENCHMARKS as RENDERED
from prunesid.study.config.published_models import published_task
from prunesid.study.planning.checks.finding import MISSING, OK, Finding
from prunesid.study.planning.checks.hub import Hub, NotReachable, NotThere
from prunesid.study.planning.checks.tasks import TaskData, known_data, task_data


def check_data(hub: Hub, tasks: Iterable[str]) -> Iterator[tuple[Finding, float]]:
    """A line for each task, and the bytes that are still to be downloaded for it."""
    asked: set[str] = set()
    for name in dict.fromkeys(tasks):
        if name in RENDERED:
            yield Finding(OK, f"data of {name}", "rendered by the study"), 0.0
            continue
        try:
            parts = task_data(name)
        except ValueError as error:
            yield Finding(MISSING, f"data of {name}", str(error), "check the benchmark's file"), 0.0
            continue
        for part in parts:
            if part.repository is None:
                yield _local(part), 0.0
            elif part.repository in asked:
                yield Finding(OK, f"data of {part.task}", f"{part.repository}, as above"), 0.0
            else:
                asked.add(part.repository)
                yield _on_hub(hub, part)


def check_token(hub: Hub, tasks: Iterable[str]) -> Iterator[Finding]:
    """The hub token, where lmms-eval's tasks insist on one."""
    fetched = [name for name in dict.fromkeys(tasks) if name not in RENDERED]
    insisting = [part for name in fetched for part in known_data(name) if part.needs_token]
    if not insisting:
        return
    if hub.has_token:
        yield Finding(OK, "hub token", f"there is one, which {len(insisting)} tasks insist on")
    elif hub.offline and all(
        part.repository is None or hub.has_dataset(part.repository) for part in insisting
    ):
        yield Finding(OK, "hub token", "none; everything is in the local cache")
    else:
        yield Finding(
            MISSING, "hub token",
            f"none, and lmms-eval loads {', '.join(p.task for p in insisting)} with one",
            "`hf auth login`, or HF_TOKEN; any account's read token will do",
        )  # fmt: skip


def _local(part: TaskData) -> Finding:
    what = f"data of {part.task}"
    lacking = [file for file in part.files if not file.is_file()]
    if lacking:
        return Finding(
            MISSING, what, f"there is no {', '.join(map(str, lacking))}",
            "docs/benchmarks.md says where its files come from and which command lays them out",
        )  # fmt: skip
    unseen = [video for file in part.files for video in _videos(file) if not video.is_file()]
    if unseen:
        return Finding(
            MISSING, what, f"{len(unseen)} of its videos, such as {unseen[0]}",
            "docs/benchmarks.md says where they come from",
        )  # fmt: skip
    return Finding(OK, what, ", ".join(map(str, part.files)))


def _videos(file: Path) -> list[Path]:
    """The videos that a file of questions names."""
    import pyarrow.parquet as pq

    if file.suffix != ".parquet" or "video" not in pq.read_schema(file).names:
        return []
    names = pq.read_table(file, columns=["video"])["video"].unique().to_pylist()
    return [Path(name) for name in names]


def _on_hub(hub: Hub, part: TaskData) -> tuple[Finding, float]:
    what, name = f"data of {part.task}", str(part.repository)
    if hub.has_dataset(name):
        return Finding(OK, what, f"{name}, in the local cache"), 0.0
    published = published_task(part.task)
    about = None if published is None else published.download
    expected = float(about or 0)
    if hub.offline:
        return Finding(
            MISSING, what, f"{name}: not in the local cache, and HF_HUB_OFFLINE is set",
            f"`HF_HUB_OFFLINE=0 hf download --repo-type dataset {name}` where there is a network",
        ), expected  # fmt: skip
    try:
        repository = hub.look(name, "dataset")
    except NotReachable as error:
        return Finding(
            MISSING, what,
            f"{name}: not in the local cache, and the hub is not reachable ({error})",
            f"`hf download --repo-type dataset {name}` where there is a network, "
            f"or copy it into {hub.cache}",
        ), expected  # fmt: skip
    except NotThere as error:
        return Finding(
            MISSING, what, str(error), "a private data set needs `hf auth login`; else report it"
        ), 0.0
    if repository.gated and not repository.open:
        return Finding(
            MISSING, what, f"{name} is gated, and this user has no access",
            "ask for it on the data set's page on the hub, then `hf auth login`",
        ), 0.0  # fmt: skip
    # A repository may hold more than the task reads.
    size = float(repository.size if about is None else min(about, repository.size))
    return Finding(OK, what, f"{name}: about {size / 1e9:,.1f} GB to download"), size
