"""Runs in trackio: a dashboard in the browser, on this machine, without an account.

All files lie in trackio/ below the directory of the runs. A later run of the same group and name
takes the place of the former one. `python -m prunesid.study.tracking.dashboard` shows them.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from prunesid.study.tracking import FAILED, Delivery, Run
from prunesid.study.tracking.json import path_of
from prunesid.study.tracking.process import lines_of, problem_of, run_bounded

FOLDER = "trackio"
# Local work, slow only on a busy machine.
START_LIMIT = 300.0
SECONDS_PER_RUN = 5.0


class Trackio:
    name = "trackio"

    def __init__(self, project: str) -> None:
        self.project = project

    def publish(
        self, runs: Sequence[Run], directory: Path, known: Mapping[str, Delivery]
    ) -> dict[str, Delivery]:
        """Every run that trackio does not hold yet. The runs must have been written as JSON."""
        directory = directory.absolute()
        done = {r.id: known[r.id] for r in runs if self._holds(known.get(r.id), directory)}
        missing = [run for run in runs if run.id not in done]
        if not missing:
            return done
        request = {
            "task": "record_trackio",
            "project": self.project,
            "directory": str(directory),
            "documents": [str(path_of(run, directory)) for run in missing],
            "groups": _names(runs),
        }
        finished = run_bounded(
            [sys.executable, "-P", str(Path(__file__).with_name("worker.py"))],
            stdin=json.dumps(request),
            environment=surroundings(directory),
            directory=directory,
            timeout=START_LIMIT + SECONDS_PER_RUN * len(missing),
        )
        arrived = {answer["id"] for answer in lines_of(finished) if "id" in answer}
        reason = problem_of(finished, "trackio") or "trackio did not record it"
        for run in missing:
            done[run.id] = (
                Delivery("written", FOLDER, target=self.project)
                if run.id in arrived
                else Delivery(FAILED, reason=reason, target=self.project)
            )
        return done

    def retract(self, delivery: Delivery, directory: Path) -> bool:
        """Nothing is left to do: the run has been replaced."""
        return True

    def describe(self, deliveries: Sequence[Delivery], directory: Path) -> list[str]:
        failed = [d for d in deliveries if d.status == FAILED]
        lines = []
        if len(failed) < len(deliveries):
            count = len(deliveries) - len(failed)
            lines.append(f"Dashboard: {count} runs; to see them in the browser: make dashboard")
        if failed:
            lines.append(f"Dashboard: {len(failed)} runs are not in it: {failed[0].reason}")
        return lines

    def _holds(self, delivery: Delivery | None, directory: Path) -> bool:
        return (
            delivery is not None
            and delivery.status != FAILED
            and delivery.target == self.project
            and any((directory / FOLDER).glob("*.db"))
        )


def _names(runs: Sequence[Run]) -> dict[str, list[str]]:
    """The names of the runs of each group."""
    found: dict[str, list[str]] = {}
    for run in runs:
        found.setdefault(run.group, []).append(run.name)
    return found


def surroundings(directory: Path) -> dict[str, str]:
    """This process's environment with trackio's files below `directory`, and no way out.

    The user's own settings for trackio may name a server or a Space; these runs stay here.
    """
    foreign = ("TRACKIO_", "GRADIO_")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(foreign) and k != "SYSTEM"}
    return kept | {
        "TRACKIO_DIR": str(directory.absolute() / FOLDER),
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
