"""A program run in a process group of its own, for a limited time."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


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


def _end(process: subprocess.Popen[bytes]) -> None:
    if hasattr(os, "killpg"):
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()
