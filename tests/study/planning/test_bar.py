"""The bar of a run: what it hides, what it shows, and what it returns."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading

import pytest

from prunesid.study.planning.bar import run


def script(text: str) -> list[str]:
    return [sys.executable, "-u", "-c", text]


def never():
    raise AssertionError("there is nothing to plan")


def test_a_run_with_nothing_to_do_is_not_planned(tmp_path):
    shown = io.StringIO()
    code = run(script("print('chatter'); print('Nothing to be done')"), tmp_path / "x" / "run.log",
               never, shown)  # fmt: skip
    assert (code, shown.getvalue()) == (0, "Nothing to be done\n")
    assert (tmp_path / "x" / "run.log").read_text() == "chatter\nNothing to be done\n"


def test_the_bar_grows_with_the_work_that_is_done(tmp_path):
    left = iter([100.0, 100.0, 60.0, 20.0, 0.0])
    shown = io.StringIO()
    text = "print('Job stats:', flush=True); import time; time.sleep(2); print('x was damaged; y')"
    code = run(script(text), tmp_path / "run.log", lambda: lambda: next(left, 0.0), shown, look=0.3)
    *bars, damaged, last = shown.getvalue().splitlines()
    shares = [int(line.partition("]")[2].partition("%")[0]) for line in bars]
    assert code == 0 and shares == [0, 40, 80, 99]
    assert damaged == "x was damaged; y" and " 100 %" in last
    assert "left" in bars[1] and "left" not in last


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("chatter\\nError in rule answer:\\n  message: full\\n", "Error in rule answer:"),
        ("chatter\\nWorkflowError in file Snakefile:\\nno\\n", "WorkflowError in file Snakefile:"),
        ("killed\\n", "killed"),
    ],
)
def test_a_failure_shows_the_log_from_its_error_on(said, expected, tmp_path):
    shown = io.StringIO()
    code = run(script(f"print('{said}'); raise SystemExit(3)"), tmp_path / "run.log", never, shown)
    lines = shown.getvalue().splitlines()
    assert code == 3 and lines[0] == expected and "chatter" not in lines
    assert lines[-1] == f"The whole log: {tmp_path / 'run.log'}"


def test_a_run_that_is_stopped_shows_no_error(tmp_path):
    shown = io.StringIO()
    text = "import time; print('Error in rule answer:'); time.sleep(60)"
    stop = threading.Timer(1, os.kill, (os.getpid(), signal.SIGTERM))
    stop.start()
    code = run(script(text), tmp_path / "run.log", never, shown)
    (said,) = shown.getvalue().splitlines()
    assert code == -signal.SIGTERM and said.startswith("Stopped; the same call goes on from here.")
