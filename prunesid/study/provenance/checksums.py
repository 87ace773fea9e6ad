"""Checksums of files, which are read again only if they were written since.

A matching remembered checksum is enough to trust a file. That a file is damaged is only said after
reading the file itself.
"""

from __future__ import annotations

import json
import time
from contextlib import suppress
from pathlib import Path

from prunesid.core.files import atomic, checksum

# A file that was written just now may be written again within the same time stamp, and data that
# the system has not yet put on disk may be lost in a power cut.
SETTLED_NS = 60_000_000_000


class Checksums:
    """A function from files to their SHA-256, which a JSON file remembers from run to run.

    A file counts as unchanged while its size, mtime, ctime and inode are the same. Nobody can set
    the ctime, so every write is noticed. `save` keeps the files that were asked for since the
    start, and forgets the rest.
    """

    def __init__(self, memory: Path) -> None:
        self._memory = memory
        try:
            found = json.loads(memory.read_bytes())
        except (OSError, ValueError):
            found = {}
        self._known = found if isinstance(found, dict) else {}
        self._asked: dict[str, list[object]] = {}

    def __call__(self, path: Path) -> str:
        state = path.stat()
        mark = [state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino]
        known = self._known.get(str(path))
        if isinstance(known, list) and known[:-1] == mark:
            self._asked[str(path)] = known
            return str(known[-1])
        now = time.time_ns()
        content = checksum(path)
        if now - max(state.st_mtime_ns, state.st_ctime_ns) > SETTLED_NS:
            self._asked[str(path)] = [*mark, content]
        return content

    def save(self) -> None:
        """Store the checksums for the next run, which reads more files if that is impossible."""
        if self._asked != self._known:
            with suppress(OSError), atomic(self._memory) as temporary:
                temporary.write_text(json.dumps(self._asked, indent=1) + "\n")
