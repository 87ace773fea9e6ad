"""Runs as JSON files: json/<group>/<name>.json below the directory of the runs. Always written.

A later run of the same group and name takes the place of the former one.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prunesid.core.files import atomic
from prunesid.study.tracking import Delivery, Run, plain
from prunesid.study.tracking.ledger import shown

FOLDER = "json"


class Json:
    name = "json"

    def publish(
        self, runs: Sequence[Run], directory: Path, known: Mapping[str, Delivery]
    ) -> dict[str, Delivery]:
        """Write every run that its file does not hold yet; the files decide, not `known`."""
        done = {}
        for run in runs:
            path = path_of(run, directory)
            if not _holds(path, run):
                text = json.dumps(document(run, directory), indent=1, allow_nan=False)
                with atomic(path) as part:
                    part.write_text(text + "\n", encoding="utf-8")
            done[run.id] = Delivery("written", path.relative_to(directory).as_posix())
        return done

    def retract(self, delivery: Delivery, directory: Path) -> bool:
        """Nothing is left to do: the file has been replaced."""
        return True

    def describe(self, deliveries: Sequence[Delivery], directory: Path) -> list[str]:
        return [f"Runs: {len(deliveries)} as JSON in {shown(directory / FOLDER)}"]


def path_of(run: Run, directory: Path) -> Path:
    """The run's file."""
    return directory / FOLDER / file_name(run.group) / f"{file_name(run.name)}.json"


def file_name(text: str) -> str:
    """The text with '-' in place of characters that a file name should not have."""
    return re.sub(r"[^\w.=+-]", "-", text)


def document(run: Run, directory: Path) -> dict[str, Any]:
    """A run as its file holds it; paths of figures and tables are relative to `directory`."""
    described = run.document

    def within(path: Path) -> dict[str, str]:
        return {"path": Path(os.path.relpath(path, directory)).as_posix()}

    files = {
        title: within(path) | {"digest": described["files"][title]}
        for title, path in run.files.items()
    }
    pictures = [
        within(picture.path) | held
        for picture, held in zip(run.pictures, described["pictures"], strict=True)
    ]
    head = {"id": run.id, "content": run.content}
    tail = {"files": files, "pictures": pictures, "environment": plain(run.environment)}
    return head | described | tail


def _holds(path: Path, run: Run) -> bool:
    try:
        return bool(json.loads(path.read_text(encoding="utf-8"))["content"] == run.content)
    except (OSError, ValueError, KeyError, TypeError):
        return False
