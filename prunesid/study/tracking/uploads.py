"""Uploads besides runs (artifacts, a workspace, a report), so that nothing is sent twice.

{"report-pocket": {"content": "<digest>", "target": "someone/prunesid", "url": "https://..."}}
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from prunesid.core.files import atomic

FILE = "uploads.json"


@dataclass(frozen=True)
class Upload:
    """`content` is a digest of what was sent, `target` the project that it was sent to."""

    content: str
    target: str
    url: str | None = None


def read_uploads(directory: Path) -> dict[str, Upload]:
    """The uploads by name, none without a file. ValueError if the file is damaged."""
    path = directory / FILE
    if not path.is_file():
        return {}
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        return {name: Upload(**each) for name, each in held.items()}
    except (TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{path} is no list of uploads ({error!r}); delete it to send all of them again"
        ) from error


def write_uploads(directory: Path, uploads: Mapping[str, Upload]) -> None:
    held = {name: asdict(uploads[name]) for name in sorted(uploads)}
    with atomic(directory / FILE) as part:
        part.write_text(json.dumps(held, indent=1) + "\n", encoding="utf-8")
