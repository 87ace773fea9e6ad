"""The published runs: one file that remembers each, so that none is published twice.

    {"runs": {"<id>": {"name": ..., "group": ..., "content": "<sha-256>",
                       "json": {"status": "written", "place": "json/grouping/default.json", ...},
                       "wandb": {"status": "offline", "place": "wandb/offline-run-...", "url": null,
                                 "reason": null, "target": "prunesid"}}}}

The identifier of a run is made from its content, so that equal results are the same run.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from prunesid.core.files import atomic
from prunesid.study.tracking import FAILED, Delivery

LEDGER = "receipts.json"
HEAD = ("name", "group", "content")


@dataclass(frozen=True)
class Entry:
    """One run and what became of it, by back end."""

    id: str
    name: str
    group: str
    content: str
    deliveries: Mapping[str, Delivery]


@dataclass(frozen=True)
class Publication:
    """The runs of one call of `publish`, in its order, and what to tell the user about them."""

    directory: Path
    entries: tuple[Entry, ...]
    lines: tuple[str, ...] = ()

    @property
    def failures(self) -> dict[str, str]:
        """{back end: reason} where a run did not arrive."""
        return {
            name: delivery.reason or "unknown"
            for entry in self.entries
            for name, delivery in entry.deliveries.items()
            if delivery.status == FAILED
        }

    def message(self, report: Path | None = None) -> str:
        """The end of a run: the report, the W&B address or the exact line that uploads the runs."""
        head = () if report is None else (f"Report: {shown(report)}",)
        return "\n".join((*head, *self.lines))

    def write(self, path: Path) -> None:
        """Write the entries as a ledger: the same bytes for the same publication, atomic."""
        write_ledger(path, self.entries)


def read_ledger(path: Path) -> dict[str, Entry]:
    """The runs of a ledger by id, none without a file. ValueError where it is damaged."""
    if not path.is_file():
        return {}
    try:
        runs = json.loads(path.read_text(encoding="utf-8"))["runs"]
        return {key: _entry(key, held) for key, held in runs.items()}
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{path} is no list of published runs ({error!r}); delete it to publish all runs again"
        ) from error


def write_ledger(path: Path, entries: Iterable[Entry]) -> None:
    """The ledger, sorted by group and name. A file that says the same already is left untouched."""
    ordered = sorted(entries, key=lambda entry: (entry.group, entry.name, entry.id))
    document = {"runs": {entry.id: _held(entry) for entry in ordered}}
    text = json.dumps(document, indent=1) + "\n"
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return
    with atomic(path) as part:
        part.write_text(text, encoding="utf-8")


def shown(path: Path) -> str:
    """A path as a user would type it: relative where it lies below the working directory."""
    absolute, here = path.absolute(), Path.cwd()
    return str(absolute.relative_to(here)) if absolute.is_relative_to(here) else str(absolute)


def _entry(key: str, held: Mapping[str, Any]) -> Entry:
    deliveries = {name: Delivery(**kept) for name, kept in held.items() if name not in HEAD}
    name, group, content = (held[each] for each in HEAD)
    return Entry(key, name, group, content, deliveries)


def _held(entry: Entry) -> dict[str, Any]:
    head = {name: getattr(entry, name) for name in HEAD}
    return head | {name: asdict(kept) for name, kept in entry.deliveries.items()}
