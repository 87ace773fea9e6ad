"""A whole study: its answers, figures and report, and at the end where to look."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from prunesid.study.clone import in_clone
from prunesid.study.config.chapters import load_whole
from prunesid.study.report.closing import closing

QUIET = {"HF_HUB_DISABLE_TELEMETRY": "1", "TRANSFORMERS_VERBOSITY": "error"}


def run(study: Path, cores: str = "all", dry: bool = False) -> int:
    """Run a study from the working directory; the exit status of Snakemake where it fails.

    cores  a number, or "all"
    dry    only list the jobs

    The report is written where it is older than what it shows. ConfigError, before anything
    starts, for a study that is not valid: Snakemake reads the file before any line of the workflow
    runs, and ends in a traceback where it cannot.
    """
    whole = load_whole(study)
    snakefile = os.path.relpath(in_clone("Snakefile"))
    snakemake = [sys.executable, "-m", "snakemake", "-s", snakefile, "--configfile", str(study)]
    # The closing message comes last, after the report's log: not by a hook.
    jobs = [*snakemake, "--cores", cores, "--no-hooks", *(["--dry-run"] if dry else [])]
    status = _call(jobs)
    if status or dry:
        return status
    report = whole.results / "report.html"
    if is_old(report, study, whole.results):
        style = os.path.relpath(in_clone("workflow", "report", "report.css"))
        status = _call([*snakemake, "--report", str(report), "--report-stylesheet", style])
        if status:
            return status
    print(closing(whole.studies, report))
    return 0


def is_old(report: Path, study: Path, results: Path) -> bool:
    """True where the report is missing or something that it shows is newer.

    Published runs are not shown, and change without it.
    """
    if not report.is_file():
        return True
    written = report.stat().st_mtime
    folders = (in_clone("workflow"), results)
    shown = (p for top in folders for p in top.rglob("*") if "runs" not in p.relative_to(top).parts)
    return any(path.is_file() and path.stat().st_mtime > written for path in (study, *shown))


def _call(command: list[str]) -> int:
    surroundings = {**QUIET, **os.environ}
    # Most of a job's time goes into imports, which take twice as long without the bytecode.
    surroundings.pop("PYTHONDONTWRITEBYTECODE", None)
    return subprocess.run(command, env=surroundings, check=False).returncode
