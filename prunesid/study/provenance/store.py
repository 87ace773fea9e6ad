"""Results on disk, named by a digest of all that determines them.

An entry is a payload and a JSON sidecar that holds the key's material, the payload's checksum and
one of its own. The sidecar is written last, by a rename: an entry without one does not exist, nor
does one whose sidecar or payload was damaged. The payload's name carries its checksum, so two
writers of one key never mix their files. The cost of an entry may stand beside it. Estimates read
it; it determines nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunesid.core.files import atomic, checksum, digest, temporary_beside


@dataclass(frozen=True)
class Entry:
    """The key of a stored result, and its cost: `seconds` and what they were spent on."""

    material: Mapping[str, Any]
    cost: Mapping[str, float]


class Store:
    """A folder of entries; any number of processes may read and write it at once."""

    def __init__(self, root: str | Path, read: Callable[[Path], str] = checksum) -> None:
        """`read` gives a payload's checksum; a wrong one is checked again by reading the file."""
        self.root = Path(root)
        self._checksum = read

    @staticmethod
    def key(material: Mapping[str, Any]) -> str:
        """The name of the result that `material` (JSON values) determines."""
        return digest(material)

    def __contains__(self, key: str) -> bool:
        return self.find(key) is not None

    def find(self, key: str) -> Path | None:
        """The payload of `key`, or None if it was never finished or is damaged."""
        sidecar = self._read(key)
        if sidecar is None:
            return None
        payload, content = self.root / sidecar["payload"], sidecar["sha256"]
        if payload.is_file() and (
            self._checksum(payload) == content or checksum(payload) == content
        ):
            return payload
        # Without its sidecar the entry does not exist, and later calls need not read the payload.
        with suppress(OSError):
            self._sidecar(key).unlink()
        return None

    def get(self, key: str) -> Path:
        """The payload of `key`; KeyError if there is none."""
        payload = self.find(key)
        if payload is None:
            raise KeyError(f"{key} is not in the store at {self.root}")
        return payload

    def entries(self) -> Iterator[Entry]:
        """Everything that was ever finished, without a look at the payloads."""
        for path in sorted(self.root.glob("*.json")):
            sidecar = self._read(path.stem)
            if sidecar is not None:
                yield Entry(sidecar["material"], sidecar["cost"])

    def put(
        self,
        material: Mapping[str, Any],
        write: Callable[[Path], object],
        suffix: str = "",
        cost: Mapping[str, float] | None = None,
    ) -> str:
        """Store the file that `write` fills, and return the key.

        Nothing is stored if `write` raises. `suffix` ends the payload's name, as in ".parquet".
        `cost` says what the seconds were spent on.
        """
        key = self.key(material)
        self.root.mkdir(parents=True, exist_ok=True)
        # Not `atomic`: the final name is known only once the content is.
        draft = temporary_beside(self.root / f"{key}{suffix}")
        try:
            write(draft)
            content = checksum(draft)
            payload = self.root / f"{key}-{content[:12]}{suffix}"
            draft.replace(payload)
        finally:
            draft.unlink(missing_ok=True)
        sidecar = {
            "material": dict(material),
            "payload": payload.name,
            "sha256": content,
            "cost": dict(cost or {}),
        }
        sidecar["checksum"] = digest(sidecar)
        with atomic(self._sidecar(key)) as draft:
            draft.write_text(json.dumps(sidecar, indent=1, sort_keys=True) + "\n")
        return key

    def _sidecar(self, key: str) -> Path:
        return self.root / f"{key}.json"

    def _read(self, key: str) -> dict[str, Any] | None:
        """The sidecar of `key`; None without one that is whole and this key's own."""
        try:
            sidecar = json.loads(self._sidecar(key).read_bytes())
            own = sidecar.pop("checksum") == digest(sidecar)
        except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
            return None
        return sidecar if own and digest(sidecar["material"]) == key else None
