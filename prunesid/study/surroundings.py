"""Environment variables that libraries read when they are imported."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def refuse_surroundings() -> None:
    """Exit with one line for values with which a library's import would end in a traceback."""
    threads = os.environ.get("OMP_NUM_THREADS") or "1"
    if not threads.strip().isdecimal():
        sys.exit(f"OMP_NUM_THREADS is {threads!r} in the environment, and no number of threads")
    for name in ("HF_HOME", "HF_HUB_CACHE"):
        folder = Path(os.environ.get(name, "."))
        if any(path.is_file() for path in (folder, *folder.parents)):
            sys.exit(f"{name} is {str(folder)!r} in the environment, which is or lies in a file")
