"""A study that is killed, cut short, damaged, copied and starved of disk ends in the same files.

pytest -n 0 tests/faults                                     # some faults, always the same
PRUNESID_FAULTS=50 PRUNESID_FAULTS_SEED=7 pytest -n 0 tests/faults
"""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from builders.synthetic_scores import ROOT
from builders.warm_python import WarmPython

from prunesid.core.files import file_digest

FAULTS = int(os.environ.get("PRUNESID_FAULTS", "8"))
SEED = int(os.environ.get("PRUNESID_FAULTS_SEED", "0"))
# Work for every stage: tokens are chosen by image, by question, in the encoder, in the decoder.
ARMS: list[dict[str, object]] = [
    {"method": name, "budget": 128} for name in ("prunesid", "cdpruner", "tome", "fastv")
]
STUDY = {
    "title": "Tiny",
    "benchmarks": ["pocket_mme"],
    "ablations": ["few"],
    "limit": 4,
    "shards": 2,
    "batch_size": 1,
    "device": "cpu",
    "patches": {"images": 1},
    "bootstrap": {"resamples": 100},
}


class Project:
    """A study of the project's own code, and its results in a folder."""

    def __init__(self, folder: Path, python: WarmPython, features: str) -> None:
        self.folder, self.results, self._python = folder, folder / "results", python
        self.targets = {"ablations/few/table.html", "pocket_mme/costs.csv"}
        (folder / "ablations").mkdir(parents=True)
        (folder / "study.yaml").write_text(yaml.safe_dump(STUDY | {"features": features}))
        self.ask(ARMS)

    def ask(self, arms: list[dict[str, object]]) -> None:
        text = yaml.safe_dump({"title": "Few", "vary": [*arms, {"method": "grid"}]})
        (self.folder / "ablations" / "few.yaml").write_text(text)

    @property
    def command(self) -> tuple[str, ...]:
        return (
            "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--configfile", "study.yaml",
            "--cores", "2", *(f"results/pocket/{name}" for name in self.targets),
        )  # fmt: skip

    def run(self) -> None:
        done = self._python.run(*self.command, cwd=self.folder)
        assert done.returncode == 0, done.stdout + done.stderr

    def run_for(self, seconds: float, how: signal.Signals) -> None:
        """A run of which all processes get a signal after some seconds."""
        run = self._python.start(*self.command, cwd=self.folder)
        time.sleep(seconds)
        self._python.signal(how)
        run.communicate()

    def run_on_a_disk_of(self, size: int) -> None:
        """A run that cannot write more than `size` bytes to a file."""
        with self._python.limited(resource.RLIMIT_FSIZE, size):
            self._python.run(*self.command, cwd=self.folder)

    def files(self) -> list[Path]:
        """Everything that a study has written but what only Snakemake and datasets read."""
        apart = {"times", "cache"}
        found = (path for path in self.results.rglob("*") if not apart & set(path.parts))
        return sorted(path for path in found if path.is_file())

    def tables(self) -> dict[str, str]:
        """{path: digest} of what a reader is shown, and of every score."""
        folder = self.results / "pocket"
        shown = [*(folder / "ablations").rglob("*.*"), *(folder / "pocket_mme").glob("*.*")]
        return {
            str(path.relative_to(folder)): file_digest(path)
            for path in shown
            if path.is_file() and not path.name.startswith(".")
        }


def fault(project: Project, rng: random.Random) -> str:
    """Something that happens to a study; says what."""

    def damage(change: Callable[[bytearray], object]) -> str:
        path = rng.choice(project.files())
        content = bytearray(path.read_bytes())
        if content:
            change(content)
        path.write_bytes(content)
        return str(path.relative_to(project.results))

    def flip(content: bytearray) -> None:
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)

    def cut(content: bytearray) -> None:
        del content[rng.randrange(len(content)) :]

    def lose() -> str:
        path = rng.choice(project.files())
        path.unlink()
        return str(path.relative_to(project.results))

    def forget() -> None:
        shutil.rmtree(project.folder / ".snakemake")

    def copy() -> None:
        copied = project.folder / "copied"
        # Neither times nor what Snakemake knows of them.
        shutil.copytree(project.results, copied, copy_function=shutil.copyfile)
        shutil.rmtree(project.results)
        copied.rename(project.results)
        forget()

    def with_other_arms() -> None:
        project.ask(rng.sample(ARMS, rng.randrange(1, len(ARMS))))
        project.run()
        project.ask(ARMS)

    def start_over() -> None:
        """All arms have to be computed anew."""
        for name in ("store", "pocket/pocket_mme"):
            shutil.rmtree(project.results / name)

    def cut_short(how: signal.Signals) -> str:
        start_over()
        seconds = rng.uniform(2, 20)
        project.run_for(seconds, how)
        return f"{how.name} after {seconds:.1f} s"

    def fill() -> str:
        start_over()
        size = int(2 ** rng.uniform(8, 21))
        project.run_on_a_disk_of(size)
        return f"files of {size} bytes"

    happens: dict[str, Callable[[], str | None]] = {
        "bits flipped": lambda: ", ".join(damage(flip) for _ in range(5)),
        "file cut": lambda: damage(cut),
        "file lost": lose,
        "records lost": forget,
        "results copied": copy,
        "other arms": with_other_arms,
        "killed": lambda: cut_short(signal.SIGKILL),
        "interrupted": lambda: cut_short(signal.SIGINT),
        "disk full": fill,
    }
    name = rng.choice(list(happens))
    return f"{name} {happens[name]() or ''}"


@pytest.fixture
def python(tmp_path) -> Iterator[WarmPython]:
    with WarmPython(tmp_path, PYTHONPATH=str(ROOT)) as running:
        yield running


@pytest.mark.slow
@pytest.mark.parametrize("features", ["keep", "drop"])
def test_a_disturbed_study_ends_as_an_undisturbed_one(python, tmp_path, features):
    undisturbed = Project(tmp_path / "undisturbed", python, features)
    undisturbed.run()
    expected = undisturbed.tables()
    assert len(expected) > 15
    project, rng = Project(tmp_path / "disturbed", python, features), random.Random(SEED)
    # What is lost is asked for.
    project.targets = set(expected)
    project.run()
    happened = []
    for number in range(FAULTS):
        happened.append(fault(project, rng))
        print(number, happened[-1], flush=True)
        project.run()
        assert project.tables() == expected, happened
    assert not list(project.results.rglob(".tmp-*"))
    kept = list(project.results.rglob("features.safetensors"))
    assert bool(kept) == (features == "keep")
