"""A program run in a process group of its own, for a limited time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAX_REASON = 300


@dataclass(frozen=True)
class Finished:
    """code is None where the program was ended after `timeout` seconds."""

    code: int | None
    stdout: str
    stderr: str
    timeout: float


def run_bounded(
    command: Sequence[str],
    *,
    stdin: str,
    environment: Mapping[str, str],
    directory: Path,
    timeout: float,
) -> Finished:
    """Run a program in `directory`; after `timeout` seconds it and its children are ended.

    Output goes through files: a child that outlives the program cannot hold up the reader of a
    pipe.
    """
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8") as given,
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as out,
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as err,
    ):
        given.write(stdin)
        given.seek(0)
        process = subprocess.Popen(
            command,
            stdin=given,
            stdout=out,
            stderr=err,
            env=dict(environment),
            cwd=directory,
            start_new_session=True,
        )
        code = None
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            pass
        finally:
            if code is None:
                _end(process)
        for stream in (out, err):
            stream.seek(0)
        return Finished(code, out.read(), err.read(), timeout)


def lines_of(finished: Finished) -> list[dict[str, Any]]:
    """The JSON objects among the lines of standard output."""
    return [json.loads(line) for line in finished.stdout.splitlines() if line.startswith("{")]


def problem_of(finished: Finished, program: str) -> str | None:
    """The problem that a program states by a line {"error": ...}, or None."""
    errors = [line["error"] for line in lines_of(finished) if "error" in line]
    if finished.code is None:
        return f"{program} did not finish within {finished.timeout:g} s"
    if finished.code == 0 and not errors:
        return None
    last = last_line(finished.stderr) or f"{program} ended with status {finished.code}"
    return short(errors[0] if errors else last)


def last_line(text: str) -> str:
    """The last line that is not empty; '' without one."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def short(reason: str) -> str:
    """A reason in one line of at most MAX_REASON characters."""
    line = " ".join(reason.split())
    return line if len(line) <= MAX_REASON else f"{line[: MAX_REASON - 3]}..."


def _end(process: subprocess.Popen[bytes]) -> None:
    if hasattr(os, "killpg"):
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()
