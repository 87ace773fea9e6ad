"""The store where Snakemake stages files: folders that its rules declare, not a shared one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from prunesid.study.provenance.store import Store


class StagedStore(Store):
    """Several folders of entries, of which the first takes new ones."""

    def __init__(self, folders: Sequence[str | Path]) -> None:
        super().__init__(folders[0])
        self._others = tuple(map(Store, folders[1:]))

    def find(self, key: str) -> Path | None:
        found = (find(key) for find in (super().find, *(other.find for other in self._others)))
        return next((path for path in found if path), None)
