"""A study in W&B, for others to see: its runs, artifacts with their lineage, workspace and report.

    python -m prunesid.study.tracking.pages --config configs/study.yaml

Needs an account. Only what is not online yet, or has changed, is sent.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from prunesid.core.files import digest, file_digest
from prunesid.study.config.chapters import load_whole
from prunesid.study.config.documents import ConfigError
from prunesid.study.config.study import Study
from prunesid.study.tracking import FAILED, Delivery, Settings
from prunesid.study.tracking.artifacts import read_artifacts, send_artifacts
from prunesid.study.tracking.dashboard import runs_of_study
from prunesid.study.tracking.ledger import LEDGER, Entry, read_ledger, shown, write_ledger
from prunesid.study.tracking.process import lines_of, problem_of, run_bounded
from prunesid.study.tracking.runs import group_of
from prunesid.study.tracking.uploads import Upload, read_uploads, write_uploads
from prunesid.study.tracking.wandb import Wandb
from prunesid.study.tracking.wandb_commands import RETRIES, record, surroundings

TABLE = "table.md"
PROCESS = Path(__file__).with_name("worker.py")
NO_ACCOUNT = (
    "This needs a W&B account, and none is known on this machine. With one: `wandb login`, or set "
    "WANDB_API_KEY, then the same command again. Without one: `make dashboard`."
)


class NotSent(RuntimeError):
    """Something could not be sent to W&B; the message says what and why."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--config", type=Path, default=Path("configs/study.yaml"))
    given = parser.parse_args(arguments)
    try:
        for study in load_whole(given.config).studies:
            settings = Settings("online", study.wandb.project, study.wandb.entity)
            for name, url in send(study, runs_of_study(study), settings).items():
                print(f"{name}: {url}")
    except (ConfigError, NotSent) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def send(study: Study, directory: Path, settings: Settings) -> dict[str, str]:
    """Send what is not online; the addresses of workspaces and report. NotSent where that fails."""
    directory = directory.absolute()
    if not (directory / LEDGER).is_file():
        raise NotSent(f"There are no runs in {shown(directory)}; `make reproduce` makes them.")
    pages = _pages(study, directory)
    if not record([], directory, settings, login=True).logged_in:
        raise NotSent(NO_ACCOUNT)
    _send_runs(directory, settings)
    problem = send_artifacts(directory, settings)
    if problem is not None:
        raise NotSent(f"The artifacts were not uploaded: {problem}")
    return _send_pages(pages, directory, settings)


def _send_runs(directory: Path, settings: Settings) -> None:
    ledger = read_ledger(directory / LEDGER)
    tracker = Wandb(settings)
    found = {
        key: tracker.found(entry.deliveries.get(tracker.name), directory)
        for key, entry in ledger.items()
    }
    recorded = {key: delivery for key, delivery in found.items() if delivery is not None}
    if not recorded:
        raise NotSent(
            f"No run is recorded for W&B's project {settings.target}; `wandb: {{mode: auto}}` in "
            "the "
            "study and `make reproduce` record them."
        )
    sent = tracker.upload(recorded, directory)
    for key, delivery in sent.items():
        ledger[key] = _with(ledger[key], tracker.name, delivery)
    write_ledger(directory / LEDGER, ledger.values())
    failed = [delivery.reason for delivery in sent.values() if delivery.status == FAILED]
    if failed:
        raise NotSent(f"{len(failed)} of {len(sent)} runs were not uploaded: {failed[0]}")


def _with(entry: Entry, tracker: str, delivery: Delivery) -> Entry:
    return replace(entry, deliveries={**entry.deliveries, tracker: delivery})


def _send_pages(pages: Mapping[str, Any], directory: Path, settings: Settings) -> dict[str, str]:
    content = digest({"pages": pages, "code": file_digest(PROCESS)})
    uploads = read_uploads(directory)
    names = ["workspace", "report", *(f"view {a['group']}" for a in pages["ablations"])]
    held = {name: uploads[name] for name in names if name in uploads}
    former = {n: u.url for n, u in held.items() if u.target == settings.target and u.url}
    current = {n: str(u.url) for n, u in held.items() if n in former and u.content == content}
    if len(current) == len(names):
        return current
    place = {"project": settings.project, "entity": settings.entity}
    request = {"task": "save_pages", **pages, **place, "former": former}
    finished = run_bounded(
        [sys.executable, "-P", str(PROCESS)],
        stdin=json.dumps(request),
        environment=surroundings(directory) | RETRIES | {"WANDB_SILENT": "true"},
        directory=directory,
        timeout=2 * settings.timeout,
    )
    urls = {name: a[name] for a in lines_of(finished) for name in names if name in a}
    uploads |= {name: Upload(content, settings.target, url) for name, url in urls.items()}
    write_uploads(directory, uploads)
    problem = problem_of(finished, "wandb")
    if problem is not None:
        missing = ", ".join(name for name in names if name not in urls)
        raise NotSent(f"Not saved: {missing}. {problem}")
    return urls


def _pages(study: Study, directory: Path) -> Mapping[str, Any]:
    """The content of workspaces and report, as JSON. NotSent if results are missing."""
    files = {
        title: path
        for artifact in read_artifacts(directory)
        for title, path in artifact.files.items()
    }
    missing = [a.name for a in study.ablations if f"{a.name}/{TABLE}" not in files]
    missing += [title for title, path in files.items() if not path.is_file()]
    if missing:
        raise NotSent(f"Results are missing ({missing[0]}); `make reproduce` makes them.")
    return {
        "title": study.title,
        "benchmarks": {b.name: b.title for b in study.benchmarks},
        "ablations": [
            {
                "group": group_of(study, a),
                "title": a.title,
                "text": files[f"{a.name}/{TABLE}"].read_text("utf-8"),
            }
            for a in study.ablations
        ],
    }


if __name__ == "__main__":
    sys.exit(main())
