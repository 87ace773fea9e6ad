"""Features, answers and report as W&B artifacts, each made from the one before.

W&B draws their lineage from runs that use one artifact and log the next. Only a server can take
them in. Offline, artifacts.json lists them, for an upload once there is an account.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunesid.core.files import atomic, digest, file_digest
from prunesid.study.tracking import Settings
from prunesid.study.tracking.process import lines_of, problem_of, run_bounded
from prunesid.study.tracking.uploads import Upload, read_uploads, write_uploads
from prunesid.study.tracking.wandb_commands import RETRIES, surroundings

FILE = "artifacts.json"
# A report of many figures takes a while on a slow line.
SECONDS_PER_ARTIFACT = 60.0


@dataclass(frozen=True)
class Artifact:
    """Files {title: path} under a name, and the names of the artifacts they were made from.

    by_reference  send names, sizes and checksums instead of the files, which are large and stay on
                  this machine
    """

    name: str
    type: str
    files: Mapping[str, Path]
    uses: tuple[str, ...] = ()
    by_reference: bool = False


def artifact_name(kind: str, model: str) -> str:
    """A name that W&B allows: letters, digits, '-', '_' and '.'."""
    return re.sub(r"[^\w.-]", "-", f"{kind}-{model}")


def write_artifacts(artifacts: Sequence[Artifact], directory: Path) -> None:
    """The list of artifacts; paths are relative to `directory`."""
    held = {
        a.name: {
            "type": a.type,
            "files": {
                title: Path(os.path.relpath(path, directory)).as_posix()
                for title, path in a.files.items()
            },
            "uses": list(a.uses),
            "by_reference": a.by_reference,
        }
        for a in artifacts
    }
    text = json.dumps(held, indent=1) + "\n"
    path = directory / FILE
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        with atomic(path) as part:
            part.write_text(text, encoding="utf-8")


def read_artifacts(directory: Path) -> list[Artifact]:
    """The artifacts of `write_artifacts`, in its order; none without a file."""
    path = directory / FILE
    if not path.is_file():
        return []
    return [
        Artifact(
            name,
            held["type"],
            {title: directory / place for title, place in held["files"].items()},
            tuple(held["uses"]),
            held["by_reference"],
        )
        for name, held in json.loads(path.read_text(encoding="utf-8")).items()
    ]


def send_artifacts(directory: Path, settings: Settings) -> str | None:
    """Send the listed artifacts that are missing online or differ there; return any problem.

    Needs an account. Never raises for what wandb does.
    """
    directory = directory.absolute()
    artifacts = read_artifacts(directory)
    uploads = read_uploads(directory)
    contents = _contents(artifacts)
    target = settings.target
    there = {n for n, u in uploads.items() if (u.content, u.target) == (contents.get(n), target)}
    missing = [a.name for a in artifacts if a.name not in there]
    if not missing:
        return None
    request = {
        "task": "send_artifacts",
        "project": settings.project,
        "entity": settings.entity,
        "directory": str(directory),
        "artifacts": {a.name: _described(a, contents[a.name]) for a in artifacts},
        "send": missing,
    }
    limit = settings.timeout
    finished = run_bounded(
        [sys.executable, "-P", str(Path(__file__).with_name("worker.py"))],
        stdin=json.dumps(request),
        environment=surroundings(directory)
        | RETRIES
        | {"WANDB_SILENT": "true", "WANDB_INIT_TIMEOUT": f"{limit:g}"},
        directory=directory,
        timeout=limit + SECONDS_PER_ARTIFACT * len(missing),
    )
    for answer in lines_of(finished):
        if "name" in answer:
            name = answer["name"]
            uploads[name] = Upload(contents[name], target, answer["url"])
    write_uploads(directory, uploads)
    return problem_of(finished, "wandb")


def _contents(artifacts: Sequence[Artifact]) -> dict[str, str]:
    """A digest per artifact of its files and of what it was made from."""
    found: dict[str, str] = {}
    for a in artifacts:
        files = {title: file_digest(path) for title, path in a.files.items()}
        found[a.name] = digest({"files": files, "uses": [found[name] for name in a.uses]})
    return found


def _described(artifact: Artifact, content: str) -> dict[str, Any]:
    return {
        "name": artifact.name,
        "type": artifact.type,
        "files": {title: str(path.resolve()) for title, path in artifact.files.items()},
        "uses": list(artifact.uses),
        "by_reference": artifact.by_reference,
        "id": content,
    }
