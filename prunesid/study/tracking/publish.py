"""Publishing runs: JSON always, trackio and W&B where they work, and nothing twice."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from prunesid.study.tracking import FAILED, Delivery, Run, Settings, Tracker
from prunesid.study.tracking.json import Json, path_of
from prunesid.study.tracking.ledger import LEDGER, Entry, Publication, read_ledger, write_ledger
from prunesid.study.tracking.trackio import Trackio
from prunesid.study.tracking.wandb import Wandb

log = logging.getLogger(__name__)


def publish(runs: Sequence[Run], directory: Path, settings: Settings | None = None) -> Publication:
    """Publish the runs below `directory`; those that its receipts.json holds are left alone.

    A failure of W&B or trackio is a warning in the log and a delivery with the status 'failed' and
    its reason, tried again by the next call. A run replaces another of the same group and
    name unless that has left this machine. ValueError if two runs share group and name; OSError if
    JSON cannot be written.
    """
    settings = settings or Settings()
    trackers: list[Tracker] = [Json()]
    if settings.trackio:
        trackers.append(Trackio(settings.project))
    return deliver(runs, directory, [*trackers, Wandb(settings)])


def deliver(runs: Sequence[Run], directory: Path, trackers: Sequence[Tracker]) -> Publication:
    """As `publish`, with back ends of your own. The first may raise, the others cannot."""
    _check_names(runs, directory)
    path = directory / LEDGER
    ledger = read_ledger(path)
    for place, tracker in enumerate(trackers):
        known = {
            key: e.deliveries[tracker.name]
            for key, e in ledger.items()
            if tracker.name in e.deliveries
        }
        try:
            delivered = tracker.publish(runs, directory, known)
        except Exception as error:
            if place == 0:
                raise
            reason = f"{type(error).__name__}: {error}"
            delivered = {run.id: Delivery(FAILED, reason=reason) for run in runs}
        for run in runs:
            ledger[run.id] = _with(ledger.get(run.id), run, tracker.name, delivered)
        for reason, count in _failures(delivered).items():
            log.warning("%s failed for %d of %d runs: %s", tracker.name, count, len(runs), reason)
        write_ledger(path, ledger.values())
    _replace_former(runs, directory, trackers, ledger)
    write_ledger(path, ledger.values())
    entries = tuple(ledger[run.id] for run in runs)
    return Publication(directory, entries, _lines(entries, directory, trackers))


def _check_names(runs: Sequence[Run], directory: Path) -> None:
    taken = Counter(path_of(run, directory) for run in runs)
    for run in runs:
        if taken[path_of(run, directory)] > 1:
            raise ValueError(
                f"two runs are named {run.group}/{run.name}; names differ within a group"
            )


def _with(entry: Entry | None, run: Run, tracker: str, delivered: Mapping[str, Delivery]) -> Entry:
    deliveries = dict(entry.deliveries) if entry else {}
    if run.id in delivered:
        deliveries[tracker] = delivered[run.id]
    return Entry(run.id, run.name, run.group, run.content, deliveries)


def _failures(delivered: Mapping[str, Delivery]) -> Counter[str]:
    return Counter(d.reason or "unknown" for d in delivered.values() if d.status == FAILED)


def _replace_former(
    runs: Sequence[Run], directory: Path, trackers: Sequence[Tracker], ledger: dict[str, Entry]
) -> None:
    """Retract runs whose name a new run has taken, at back ends that have the new run."""
    current = {(run.group, run.name): run.id for run in runs}
    for key, former in list(ledger.items()):
        new = current.get((former.group, former.name), key)
        if new == key:
            continue
        left = dict(former.deliveries)
        for tracker in trackers:
            old, arrived = left.get(tracker.name), ledger[new].deliveries.get(tracker.name)
            safe = arrived is not None and (arrived.status != FAILED or arrived.place is not None)
            if old is not None and safe and tracker.retract(old, directory):
                del left[tracker.name]
        if left:
            ledger[key] = Entry(key, former.name, former.group, former.content, left)
        else:
            del ledger[key]


def _lines(
    entries: Sequence[Entry], directory: Path, trackers: Sequence[Tracker]
) -> tuple[str, ...]:
    lines = []
    for tracker in trackers:
        held = [e.deliveries[tracker.name] for e in entries if tracker.name in e.deliveries]
        lines += tracker.describe(held, directory) if held else []
    return tuple(lines)
