"""The quick study on a real Slurm: jobs cancelled, a node lost, and the tables of a local run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from builders import study_runs
from builders.slurm import Slurm, running_slurm, wait_for, why_not
from builders.study_runs import ROOT, tables

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(why_not() is not None, reason=why_not() or ""),
]
MINUTES = 60
# Two jobs at once, each on the GPU that Slurm gave it; the locks are taken as jobs of a study do.
ON_A_GPU = """
import os, sys, time
from pathlib import Path
from prunesid.study.stages.device import hold_one
given = os.environ["CUDA_VISIBLE_DEVICES"].split(",")
names = [f"{os.environ['SLURMD_NODENAME']}-{number}" for number in given]
begun = time.monotonic()
with hold_one(names, Path(sys.argv[1]), 0.1) as place:
    waited = time.monotonic() - begun
    time.sleep(4)
Path(sys.argv[2]).write_text(f"{len(names)} {names[place]} {waited < 1}")
"""


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    with running_slurm(tmp_path_factory.mktemp("slurm")) as running:
        yield running


@pytest.fixture(scope="module")
def local(tmp_path_factory) -> Path:
    """The folder of the study as one machine makes it."""
    folder = tmp_path_factory.mktemp("local")
    study_runs.run(folder, "--workflow-profile", str(ROOT / "profiles/default"), "--cores", "2")
    return folder


def job_of(slurm: Slurm, rule: str, state: str) -> str | None:
    """The id of a job of a rule in that state."""
    for number, (now, _, comment) in slurm.jobs().items():
        if now == state and comment.startswith(f"rule_{rule}"):
            return number
    return None


def meanwhile(run: subprocess.Popen[bytes], happened: Callable[[], object], what: str) -> None:
    def either() -> object:
        assert run.poll() is None, "the study ended before"
        return happened()

    wait_for(either, 10 * MINUTES, what)


def test_a_disturbed_study_has_the_tables_of_a_local_one(slurm, local, tmp_path):
    command = study_runs.command(
        "--workflow-profile", str(ROOT / "profiles/slurm"),
        "--slurm-init-seconds-before-status-checks", "3", "--seconds-between-status-checks", "3",
    )  # fmt: skip
    log = tmp_path / "log"
    with log.open("wb") as out:
        run = subprocess.Popen(command, cwd=tmp_path, stdout=out, stderr=out)
        try:
            meanwhile(run, lambda: job_of(slurm, "select", "RUNNING"), "selection")
            cancelled = job_of(slurm, "select", "RUNNING")
            subprocess.run(["scancel", str(cancelled)], check=True)
            meanwhile(run, lambda: job_of(slurm, "answer", "RUNNING"), "answers")
            answering = job_of(slurm, "answer", "RUNNING")
            node = slurm.jobs()[str(answering)][1]
            slurm.kill_node(node)
            meanwhile(run, lambda: slurm.jobs()[str(answering)][1] not in ("", node), "a new node")
            slurm.start_node(node)
            assert run.wait(15 * MINUTES) == 0, log.read_text()
        finally:
            # It would wait for its jobs, which end with Slurm.
            run.kill()
    jobs = slurm.jobs()
    assert jobs[str(cancelled)][0] == "CANCELLED"
    assert job_of(slurm, "select", "COMPLETED") not in (None, cancelled)
    assert jobs[str(answering)][0] == "COMPLETED"
    expected = tables(local)
    assert len(expected) > 50
    assert tables(tmp_path) == expected
    subprocess.run(
        [sys.executable, str(ROOT / "tests/quick_study.py")], cwd=tmp_path, check=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def test_locks_agree_with_the_gpus_that_slurm_gives(slurm, tmp_path):
    script = tmp_path / "on_a_gpu.py"
    script.write_text(ON_A_GPU)
    says = [tmp_path / f"said{number}" for number in range(4)]
    for said in says:
        command = f"{sys.executable} {script} {tmp_path / 'locks'} {said}"
        subprocess.run(
            ["sbatch", "--gpus=1", "--mem=500", f"--output={tmp_path}/%j.log", "--wrap", command],
            check=True, env=os.environ | {"PYTHONPATH": str(ROOT)},
        )  # fmt: skip
    wait_for(lambda: all(said.is_file() for said in says), 2 * MINUTES, "jobs on GPUs")
    counts, names, at_once = zip(*(said.read_text().split() for said in says), strict=True)
    # Each sees one GPU, no two the same, and none waits for a lock.
    assert set(counts) == {"1"}
    assert len(set(names)) == len(says)
    assert set(at_once) == {"True"}
