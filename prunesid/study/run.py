"""A whole study: its answers, figures and report, and at the end where to look."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from prunesid.study.clone import in_clone
from prunesid.study.config.chapters import load_whole
from prunesid.study.planning import bar
from prunesid.study.report.closing import closing
from prunesid.study.report.finish import finish

QUIET = {"HF_HUB_DISABLE_TELEMETRY": "1", "TRANSFORMERS_VERBOSITY": "error"}


def run(study: Path, cores: str = "all", dry: bool = False) -> int:
    """Run a study from the working directory; the exit status of Snakemake where it fails.

    cores  a number, or "all"
    dry    only list the jobs

    A bar shows how far it is; what Snakemake says goes to logs below the results. The report is
    written where it is older than what it shows. ConfigError, before anything starts, for a study
    that is not valid: Snakemake reads the file before any line of the workflow runs, and ends in a
    traceback where it cannot.
    """
    whole = load_whole(study)
    snakefile = os.path.relpath(in_clone("Snakefile"))
    snakemake = [sys.executable, "-m", "snakemake", "-s", snakefile, "--configfile", str(study)]
    # The closing message comes last, after the report's log: not by a hook.
    jobs = [*snakemake, "--cores", cores, "--no-hooks"]
    if dry:
        return subprocess.run([*jobs, "--dry-run"], env=_surroundings(), check=False).returncode
    status = _call(jobs, study, whole.results / "reproduce.log")
    if status:
        return status
    report = whole.results / "report.html"
    if is_old(report, study, whole.results):
        print(f"Writing {report}", flush=True)
        style = os.path.relpath(in_clone("workflow", "report", "report.css"))
        shown = [*snakemake, "--report", str(report), "--report-stylesheet", style]
        status = _call(shown, study, whole.results / "report.log")
        if status:
            return status
        finish(report, whole.title)
    print(closing(whole.studies, report))
    return 0


def is_old(report: Path, study: Path, results: Path) -> bool:
    """True where the report is missing or something that it shows is newer.

    Published runs, logs and hidden files are not shown, and change without it.
    """
    if not report.is_file():
        return True
    written = report.stat().st_mtime
    shown = [
        path for top in (in_clone("workflow"), results) for path in top.rglob("*")
        if "runs" not in path.relative_to(top).parts and path.suffix != ".log"
        and not path.name.startswith(".")
    ]  # fmt: skip
    return any(path.is_file() and path.stat().st_mtime > written for path in (study, *shown))


def _call(command: list[str], study: Path, log: Path) -> int:
    code = bar.run(command, log, lambda: bar.planned(study), sys.stdout, env=_surroundings())
    return code if code >= 0 else 128 - code


def _surroundings() -> dict[str, str]:
    surroundings = {**QUIET, **os.environ}
    # Most of a job's time goes into imports, which take twice as long without the bytecode.
    surroundings.pop("PYTHONDONTWRITEBYTECODE", None)
    return surroundings
