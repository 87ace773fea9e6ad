"""A Python that has imported already what the jobs of a study import, and forks for each of them.

Importing torch, transformers and lmms-eval takes a job of a small study far longer than its work.
Here one process imports them once:

    with WarmPython(folder) as python:
        python.run("-m", "snakemake", "--cores", "1", cwd=project)

runs Snakemake in a fork of it. There `sys.executable`, by which Snakemake starts its scripts, is a
command that asks for a fork in turn. So every job is a process of its own, as ever, with the
script, input and exit status that it has anywhere.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import runpy
import select
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

MODULES = (
    "lmms_eval.evaluator", "matplotlib.pyplot", "pyarrow.parquet", "safetensors.torch",
    "scipy.stats", "seaborn", "snakemake.cli", "transformers", "prunesid.lmms.scoring",
    "prunesid.study.stages.costs", "prunesid.study.stages.answers", "prunesid.study.stages.budgets",
    "prunesid.study.stages.information", "prunesid.study.stages.selection",
    "prunesid.study.analysis.pairs", "prunesid.study.analysis.strata",
    "prunesid.study.report.figures", "prunesid.study.report.table",
)  # fmt: skip


class WarmPython:
    """`folder` takes the socket, the command, and the data sets' cache, which forks share."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self._socket, self._command = folder / "socket", folder / "python"
        self._command.write_text(
            f'#!/bin/sh\nexec {sys.executable} -IS {__file__} {self._socket} "$@"\n'
        )
        self._command.chmod(0o755)
        # Both are read when what is forked was imported; the workflow would set them for its jobs.
        self._environment = {
            **os.environ,
            **environment,
            "HF_DATASETS_CACHE": str(folder / "cache"),
            "LOGURU_LEVEL": "WARNING",
        }

    def __enter__(self) -> WarmPython:
        self._server = subprocess.Popen(
            [sys.executable, __file__, "--serve", self._socket, self._command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=self._environment,
        )
        assert self._server.stdout is not None and self._server.stdout.readline() == b"ready\n"
        return self

    def __exit__(self, *raised: object) -> None:
        self._server.kill()
        self._server.wait()

    def start(self, *arguments: str, cwd: Path) -> subprocess.Popen[str]:
        """`python *arguments`, begun."""
        return subprocess.Popen(
            [self._command, *arguments], cwd=cwd, env=self._environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def run(self, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        """What `python *arguments` does."""
        with self.start(*arguments, cwd=cwd) as running:
            out, error = running.communicate()
        return subprocess.CompletedProcess(running.args, running.returncode, out, error)

    def signal(self, how: signal.Signals) -> None:
        """Sends a signal to all that was forked; one that kills until nothing is left."""
        import psutil  # here: what asks for a fork has the standard library alone

        server = psutil.Process(self._server.pid)
        while forked := server.children():
            for each in forked:
                with suppress(psutil.NoSuchProcess):
                    each.send_signal(how)
            if how != signal.SIGKILL:
                return
            psutil.wait_procs(forked, timeout=1)

    @contextmanager
    def limited(self, what: int, size: int) -> Iterator[None]:
        """All that is forked in the block has this limit, as of `resource.RLIMIT_FSIZE`."""
        before = resource.prlimit(self._server.pid, what)
        resource.prlimit(self._server.pid, what, (size, before[1]))
        try:
            yield
        finally:
            resource.prlimit(self._server.pid, what, before)


def serve(address: str, command: str) -> None:
    """Forks for every connection until the standard input ends, as it does with who started it."""
    for name in MODULES:
        importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        print("ready", flush=True)
        while listener in select.select([listener, sys.stdin], [], [])[0]:
            connection, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                _work(connection, command)
            connection.close()


def _work(connection: socket.socket, command: str) -> None:
    """Becomes what the connection asks for, and tells it the exit status."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    message, streams, *_ = socket.recv_fds(connection, 1 << 20, 2)
    asked = json.loads(message)
    for number, stream in enumerate(streams, start=1):
        os.dup2(stream, number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    sys.executable = command
    status: object = 0
    try:
        _run(asked["arguments"])
    except SystemExit as left:
        status = left.code or 0
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    connection.sendall(b"%d" % (status if isinstance(status, int) else 1))
    os._exit(0)


def _run(arguments: list[str]) -> None:
    """As Python's own command line: `-m MODULE ...` or `FILE ...`."""
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        sys.path[0] = str(Path(arguments[0]).parent)
        runpy.run_path(arguments[0], run_name="__main__")


def ask(address: str, arguments: list[str]) -> int:
    """Has a fork run; its exit status."""
    asked = {"arguments": arguments, "cwd": os.getcwd(), "environment": dict(os.environ)}
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        socket.send_fds(connection, [json.dumps(asked).encode()], [1, 2])
        return int(connection.recv(16) or b"1")


if __name__ == "__main__":
    if sys.argv[1] == "--serve":
        serve(*sys.argv[2:])
    else:
        sys.exit(ask(sys.argv[1], sys.argv[2:]))
