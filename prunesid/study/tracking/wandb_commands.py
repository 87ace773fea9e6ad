"""The two steps of publishing in W&B, recording and uploading, each a process with limited time."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from prunesid.study.tracking import Settings
from prunesid.study.tracking.process import last_line, lines_of, problem_of, run_bounded, short

DATA = "wandb-data"
# Of the user's settings only those that say which server, and as whom; a run's id, name or mode
# that is meant for another program must not get into these runs.
KEPT = tuple(
    f"WANDB_{name}"
    for name in (
        "API_KEY", "BASE_URL", "APP_URL", "IDENTITY_TOKEN_FILE", "CREDENTIALS_FILE", "CONFIG_DIR",
        "HTTP_PROXY", "HTTPS_PROXY", "INSECURE_DISABLE_SSL",
    )
)  # fmt: skip
# A dead server is to be noticed, not waited for: without these limits `wandb sync` never ends.
RETRIES = {
    f"WANDB__{channel}_RETRY_{setting}": value
    for channel in ("GRAPHQL", "FILE_STREAM", "FILE_TRANSFER")
    for setting, value in (("MAX", "2"), ("WAIT_MIN_SECONDS", "1"), ("WAIT_MAX_SECONDS", "5"))
}
UPLOADS_AT_ONCE = 5
SECONDS_PER_UPLOAD = 5.0
# Recording is local work, slow only on a busy machine, so its limit is generous.
RECORDING_LIMIT = 300.0
SECONDS_PER_RECORDING = 5.0


@dataclass(frozen=True)
class Recorded:
    """What the recording process said: folders by run id, credentials found, any problem."""

    places: Mapping[str, Path]
    logged_in: bool
    reason: str | None


def record(
    documents: Sequence[Path], directory: Path, settings: Settings, *, login: bool
) -> Recorded:
    """Record runs offline below `directory`/wandb from the files of tracking/json.py.

    `login` asks whether wandb finds credentials, too. Never raises for what wandb does.
    """
    request = {
        "task": "record_wandb",
        "login": login,
        "project": settings.project,
        "entity": settings.entity,
        "directory": str(directory),
        "documents": [str(path.absolute()) for path in documents],
    }
    done = run_bounded(
        [sys.executable, "-P", str(Path(__file__).with_name("worker.py"))],
        stdin=json.dumps(request),
        environment=surroundings(directory)
        | {"WANDB_SILENT": "true", "WANDB__SERVICE_WAIT": "120"},
        directory=directory,
        timeout=RECORDING_LIMIT + SECONDS_PER_RECORDING * len(documents),
    )
    answers = lines_of(done)
    return Recorded(
        places={a["id"]: Path(a["place"]) for a in answers if "place" in a},
        logged_in=any(answer.get("logged_in") for answer in answers),
        reason=problem_of(done, "wandb"),
    )


def upload(places: Sequence[Path], directory: Path, settings: Settings) -> tuple[str, str]:
    """Upload recorded runs; return the output of `wandb sync`, and the problem, if any.

    The exit status does not tell whether a run arrived; ask `uploaded` for each place.
    """
    limit = settings.timeout
    timeouts = {
        "WANDB_INIT_TIMEOUT": f"{limit:g}",
        "WANDB_HTTP_TIMEOUT": f"{max(1.0, limit / 4):g}",
    }
    command = [sys.executable, "-P", "-m", "wandb", "sync", "-n", str(UPLOADS_AT_ONCE)]
    done = run_bounded(
        [*command, *map(str, places)],
        stdin="",
        environment=surroundings(directory) | RETRIES | timeouts,
        directory=directory,
        timeout=limit + SECONDS_PER_UPLOAD * (len(places) - 1),
    )
    said = done.stdout + done.stderr
    if done.code is None:
        return said, f"the upload did not finish within {done.timeout:g} s"
    errors = re.findall(r"^wandb: ERROR (.*)$", said, flags=re.MULTILINE)
    if errors[:1] == ["<no message>"]:
        server = os.environ.get("WANDB_BASE_URL", "its server")
        errors = [f"wandb sync gave no reason; perhaps {server} cannot be reached from here"]
    return said, short(errors[0] if errors else last_line(said) or "wandb sync said nothing")


def uploaded(place: Path) -> bool:
    """Whether `wandb sync`, called here or by the user, has left its mark in a run's folder."""
    return any(place.glob("*.wandb.synced"))


def url_of(run_id: str, said: str) -> str | None:
    """The run's address in what `wandb sync` said."""
    found = re.search(rf"https?://\S+/runs/{run_id}\b", said)
    return found.group() if found else None


def surroundings(directory: Path) -> dict[str, str]:
    """This process's environment, but wandb's files go to `directory`."""
    data = directory / DATA
    others = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_") or k in KEPT}
    return others | {
        "WANDB_DIR": str(directory),
        "WANDB_DATA_DIR": str(data),
        "WANDB_CACHE_DIR": str(data / "cache"),
        "WANDB_ARTIFACT_DIR": str(data / "artifacts"),
        "WANDB_ERROR_REPORTING": "false",
    }
