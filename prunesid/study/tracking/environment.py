"""The versions, commit and device that made the results. Recorded with every run."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from prunesid.study.stages.device import device_name

PACKAGES = (
    "prunesid",
    "torch",
    "transformers",
    "lmms-eval",
    "snakemake",
    "wandb",
    "numpy",
    "scikit-learn",
)


def environment(device: str = "auto") -> dict[str, Any]:
    """{'versions', 'commit', 'dirty', 'device', 'threads', 'platform'}.

    `device` as in a study's configuration. versions: null for a package that is not installed.
    commit and dirty are null outside a clone; dirty says that tracked files differ from the commit.
    threads: CPU threads of torch.
    """
    import torch

    commit, dirty = commit_of(Path(__file__).parent)
    return {
        "versions": {"python": platform.python_version()}
        | {name: _version(name) for name in PACKAGES},
        "commit": commit,
        "dirty": dirty,
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "platform": platform.platform(),
    }


def commit_of(folder: Path) -> tuple[str | None, bool | None]:
    """The commit checked out around `folder`, and whether tracked files differ from it.

    (None, None) without git, outside a clone, and for an installed copy that some other clone
    ignores or does not track.
    """
    if _git(folder, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None, None
    commit = _git(folder, "rev-parse", "--verify", "HEAD")
    if commit is None:
        return None, None
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return commit, None if changed is None else bool(changed)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        if package == "prunesid":
            from prunesid import __version__

            return __version__
        return None


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=30,
            env=os.environ | {"GIT_OPTIONAL_LOCKS": "0"},
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
