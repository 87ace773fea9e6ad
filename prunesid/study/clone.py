"""Files of the repository that the installed package lacks, such as those in configs/."""

from __future__ import annotations

from pathlib import Path

CLONE = Path(__file__).resolve().parents[2]


def in_clone(*parts: str) -> Path:
    """The path of a file or folder of the repository, by its parts from the top.

    FileNotFoundError if it is not there, as in an environment where only the wheel is installed.
    """
    path = CLONE.joinpath(*parts)
    if not path.exists():
        raise FileNotFoundError(
            f"{'/'.join(parts)} is not at {path}. Studies need a clone of the repository; an "
            "installed prunesid holds the library and the lmms-eval plug-in alone."
        )
    return path
