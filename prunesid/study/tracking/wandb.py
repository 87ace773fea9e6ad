"""Runs in Weights & Biases: recorded offline first, then uploaded where an account is at hand.

Recording needs no network, so a run is complete on disk before a server is asked; an upload that
fails can be repeated with `wandb sync`, and nothing is recorded twice. All files lie below the
directory of the runs: wandb/ holds a folder per run, wandb-data/ what waits for an upload.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from prunesid.study.tracking import FAILED, MODES, Delivery, Run, Settings
from prunesid.study.tracking.json import path_of
from prunesid.study.tracking.ledger import shown
from prunesid.study.tracking.wandb_commands import Recorded, record, upload, uploaded, url_of

FOLDER = "wandb"


class Wandb:
    name = "wandb"

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def mode(self) -> str:
        """The mode asked for; where that is auto and WANDB_MODE names one, that one."""
        asked = os.environ.get("WANDB_MODE", "")
        return asked if self.settings.mode == "auto" and asked in MODES else self.settings.mode

    def publish(
        self, runs: Sequence[Run], directory: Path, known: Mapping[str, Delivery]
    ) -> dict[str, Delivery]:
        """Offline: a folder per run. Online: the same, uploaded. Disabled: nothing.

        Failures are deliveries with the status 'failed' and a reason, tried again by the next call.
        The runs must have been written as JSON.
        """
        mode = self.mode()
        if mode == "disabled":
            return {}
        directory = directory.absolute()
        found = {run.id: self.found(known.get(run.id), directory) for run in runs}
        done = {key: delivery for key, delivery in found.items() if delivery is not None}
        missing = [run for run in runs if run.id not in done]
        waiting = any(delivery.status != "online" for delivery in done.values())
        if missing or (mode == "auto" and waiting):
            _remove_leftovers(missing, directory)
            documents = [path_of(run, directory) for run in missing]
            recorded = record(documents, directory, self.settings, login=mode == "auto")
            if mode == "auto":
                mode = "online" if recorded.logged_in else "offline"
            done |= {run.id: self._delivery(recorded, run, directory) for run in missing}
        return self.upload(done, directory) if mode == "online" else done

    def retract(self, delivery: Delivery, directory: Path) -> bool:
        """Delete the folder of a run that was never uploaded."""
        if delivery.status == "online":
            return False
        if delivery.place is not None:
            place = directory / delivery.place
            if uploaded(place):
                return False
            shutil.rmtree(place, ignore_errors=True)
        return True

    def describe(self, deliveries: Sequence[Delivery], directory: Path) -> list[str]:
        online = [d for d in deliveries if d.status == "online"]
        offline = [d for d in deliveries if d.status == "offline"]
        failed = [d for d in deliveries if d.status == FAILED]
        sync = f"  {_program()} sync {shlex.quote(shown(directory / FOLDER))}"
        lines = []
        if online:
            urls = [d.url for d in online if d.url]
            lines.append(f"W&B: {_runs(online)} online")
            lines += [f"  {urls[0].split('/runs/')[0]}"] if urls else []
        if offline:
            lines.append(f"W&B: {_runs(offline)} recorded offline; to upload, after `wandb login`:")
            lines.append(sync)
        if failed:
            lines.append(f"W&B: {_runs(failed)} not published: {failed[0].reason}")
            if any(d.place for d in failed):
                lines += ["They are recorded offline; to upload them:", sync]
            else:
                lines.append("No result is lost: they are complete as JSON.")
        return lines

    def found(self, delivery: Delivery | None, directory: Path) -> Delivery | None:
        """A former delivery as it stands now; None where the run has to be recorded (again)."""
        if delivery is None or delivery.target != self.settings.target:
            return None
        if delivery.status == "online":
            return delivery
        if delivery.place is None or not any((directory / delivery.place).glob("*.wandb")):
            return None
        status = "online" if uploaded(directory / delivery.place) else "offline"
        return replace(delivery, status=status, reason=None)

    def _delivery(self, recorded: Recorded, run: Run, directory: Path) -> Delivery:
        place = recorded.places.get(run.id)
        if place is None:
            reason = recorded.reason or "wandb did not record it"
            return Delivery(FAILED, reason=reason, target=self.settings.target)
        return Delivery(
            "offline", place.relative_to(directory).as_posix(), target=self.settings.target
        )

    def upload(self, deliveries: dict[str, Delivery], directory: Path) -> dict[str, Delivery]:
        """Upload the waiting runs, first one, then ever larger batches, until one fails.

        So a server that does not answer, or stops answering, costs one timeout.
        """
        places = {
            k: directory / str(d.place) for k, d in deliveries.items() if d.status == "offline"
        }
        keys, reason = list(places), ""
        done, size = 0, 1
        while batch := keys[done : done + size]:
            said, reason = upload([places[key] for key in batch], directory, self.settings)
            for key in batch:
                if uploaded(places[key]):
                    url = url_of(key, said)
                    deliveries[key] = replace(deliveries[key], status="online", url=url)
            if any(deliveries[key].status != "online" for key in batch):
                break
            done, size = done + size, size * 8
        return {
            key: replace(delivery, status=FAILED, reason=reason)
            if delivery.status == "offline"
            else delivery
            for key, delivery in deliveries.items()
        }


def _remove_leftovers(runs: Sequence[Run], directory: Path) -> None:
    """Remove what a call that was killed has left; wandb would make a second folder beside it."""
    for run in runs:
        for leftover in (directory / FOLDER).glob(f"offline-run-*-{run.id}"):
            shutil.rmtree(leftover)


def _runs(deliveries: Sequence[Delivery]) -> str:
    return f"{len(deliveries)} run{'' if len(deliveries) == 1 else 's'}"


def _program() -> str:
    """The wandb command as the user can type it, whether or not the environment is activated."""
    own = Path(sys.executable).with_name("wandb")
    found = shutil.which("wandb")
    if not own.is_file() or (found and Path(found).absolute() == own.absolute()):
        return "wandb"
    return shlex.quote(shown(own))
