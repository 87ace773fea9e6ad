"""One bar for a command that computes a study, by the work that is left of it in seconds.

What the command says goes to the log. Shown are the bar, what was damaged and is made again, and,
where the command fails, the log from its first error on.
"""

from __future__ import annotations

import re
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TextIO

# Seconds between two checks that the command runs, and between two looks at how far it is. For a
# large study such a look takes seconds; looks may take no more than this share of the time.
TICK, LOOK, SHARE = 0.2, 60.0, 0.03
WIDTH = 30
# Snakemake says it once it knows that there is something to do.
JOBS = "Job stats:"
# What is shown beside the bar.
SAID = re.compile(r".* was damaged; |.* named damaged |Nothing to be done")
FAILED = re.compile(r"^(?:Error in rule |Traceback|\S*(?:Error|Exception)\b)", re.MULTILINE)
# Lines of a log in which nothing is known to be an error.
LAST = 60


class Left(Protocol):
    """Work that is left, in seconds of one process."""

    def __call__(self) -> float: ...


def run(
    command: Sequence[str],
    log: Path,
    plan: Callable[[], Left],
    shown: TextIO,
    look: float = LOOK,
    env: Mapping[str, str] | None = None,
) -> int:
    """Run the command with its output in `log`; return its exit code, or minus a signal's number.

    plan  called once there is something to do; the `Left` that it returns is called every `look`
          seconds
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=env)
    stopped = False

    def stop(*_: object) -> None:
        nonlocal stopped
        stopped = True
        process.terminate()

    former = signal.signal(signal.SIGTERM, stop)
    try:
        with log.open(encoding="utf-8", errors="replace") as said:
            _follow(process, said, plan, _Bar(shown), look)
    except KeyboardInterrupt:
        stopped = True
        process.wait()  # it was interrupted, too
    finally:
        signal.signal(signal.SIGTERM, former)
    if stopped and process.returncode:
        print(f"Stopped; the same call goes on from here. The log: {log}", file=shown, flush=True)
    elif process.returncode:
        text = log.read_text(encoding="utf-8", errors="replace")
        found = FAILED.search(text)
        part = text[found.start() :] if found else "\n".join(text.splitlines()[-LAST:])
        print(f"{part.rstrip()}\nThe whole log: {log}", file=shown, flush=True)
    return process.returncode


def _follow(
    process: subprocess.Popen[bytes],
    said: TextIO,
    plan: Callable[[], Left],
    bar: _Bar,
    look: float,
) -> None:
    """Show how far a command is until it ends; `said` is its log."""
    rest, whole, begun, next_look = "", 0.0, 0.0, 0.0
    left: Left | None = None
    while True:
        ended = process.poll() is not None
        *lines, rest = (rest + said.read()).split("\n")
        for line in filter(SAID.match, lines):
            bar.say(line)
        if ended:
            break
        if left is None and any(line.startswith(JOBS) for line in lines):
            left = plan()
            whole, begun = left(), time.monotonic()
        # Jobs that only draw tables and pages have no estimate.
        now = time.monotonic()
        if left is not None and whole and now >= next_look:
            done = min(0.99, 1 - left() / whole)
            looked = time.monotonic()
            next_look = looked + max(look, (looked - now) / SHARE)
            bar.draw(max(done, 0.0), looked - begun)
        time.sleep(TICK)
    if left is not None and process.returncode == 0:
        bar.draw(1.0, time.monotonic() - begun)
    bar.end()


class _Bar:
    """One line that changes, on a terminal; elsewhere a line for every tenth."""

    def __init__(self, shown: TextIO) -> None:
        self.shown, self.tenth, self.open = shown, -1, False

    def draw(self, done: float, seconds: float) -> None:
        filled = round(WIDTH * done)
        text = f"[{'#' * filled}{'.' * (WIDTH - filled)}] {100 * done:3.0f} %, {_time(seconds)}"
        if 0.02 < done < 1:
            text += f", about {_time(seconds / done * (1 - done))} left"
        if self.shown.isatty():
            self.shown.write(f"\r{text:<79}")
            self.open = True
        elif int(10 * done) > self.tenth:
            self.tenth = int(10 * done)
            self.shown.write(f"{text}\n")
        self.shown.flush()

    def say(self, line: str) -> None:
        self.end()
        print(line, file=self.shown, flush=True)

    def end(self) -> None:
        if self.open:
            self.shown.write("\n")
        self.open = False


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def planned(study: Path) -> Left:
    """What is left of the study in a file, by what its stages have taken on this machine so far."""
    # Only where there is something to do: the imports take longer than to see that nothing is.
    from prunesid.study.config.chapters import load_whole
    from prunesid.study.planning.estimate import estimate
    from prunesid.study.planning.progress import steps

    first = [estimate(each) for each in load_whole(study).studies]

    def left() -> float:
        return sum(
            each.rates.seconds(step.left)
            for each in first
            for step in steps(each.study, each.sizes)
        )

    return left
