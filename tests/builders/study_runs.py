"""The quick study run as a user runs it, and what two such runs must have in common."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from prunesid.core.files import file_digest

ROOT = Path(__file__).parents[2]
# What the clock says differs from run to run.
CLOCKED = {"timings", "latency", "speed", "stations"}


def command(*options: str) -> list[str]:
    """Snakemake on the quick study; results go below its working directory."""
    return [
        sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"),
        "--configfile", str(ROOT / "configs" / "quick.yaml"), *options,
    ]  # fmt: skip


def run(folder: Path, *options: str) -> None:
    """The quick study with results below `folder`; RuntimeError with its log where it fails."""
    done = subprocess.run(
        command(*options), cwd=folder, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)


def tables(folder: Path) -> dict[str, str]:
    """{path: digest} of the tables and pictures of the quick study below `folder`."""
    results = folder / "results" / "quick" / "pocket"
    return {
        str(path.relative_to(results)): file_digest(path)
        for suffix in ("csv", "parquet", "png", "svg", "html", "md")
        for path in sorted(results.rglob(f"*.{suffix}"))
        if path.stem not in CLOCKED and not {"runs", "notebook"} & set(path.parts)
    }
