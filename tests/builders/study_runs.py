"""The quick study run as a user runs it, and what two such runs must have in common."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from prunesid.core.files import file_digest

ROOT = Path(__file__).parents[2]
QUICK = ROOT / "configs" / "quick.yaml"
# What the clock says differs from run to run.
CLOCKED = {"timings", "latency", "speed", "stations"}


def command(*options: str, study: Path = QUICK) -> list[str]:
    """Snakemake on a study; results go below its working directory."""
    return [
        sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"),
        "--configfile", str(study), *options,
    ]  # fmt: skip


def run(folder: Path, *options: str, study: Path = QUICK) -> str:
    """The log of a study with results below `folder`; RuntimeError with it where it fails."""
    done = subprocess.run(
        command(*options, study=study), cwd=folder, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    log = done.stdout + done.stderr
    if done.returncode:
        raise RuntimeError(log)
    return log


def tables(folder: Path) -> dict[str, str]:
    """{path: digest} of the tables and pictures below the quick study's results in `folder`."""
    results = folder / "results" / "quick" / "pocket"
    return {
        str(path.relative_to(results)): file_digest(path)
        for suffix in ("csv", "parquet", "png", "svg", "html", "md")
        for path in sorted(results.rglob(f"*.{suffix}"))
        if path.stem not in CLOCKED and not {"runs", "notebook"} & set(path.parts)
    }
