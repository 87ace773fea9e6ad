"""A disk that is full: the message says which, and how much is missing; then the study goes on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from builders.synthetic_scores import ROOT

from prunesid.study.config.study import load_study
from prunesid.study.planning.checks.machine import Machine, mount_of
from prunesid.study.planning.disk import full_disk
from prunesid.study.planning.estimate import estimate, text

STUDY = {
    "title": "Tiny",
    "benchmarks": ["pocket_mme"],
    "ablations": ["few"],
    "limit": 4,
    "device": "cpu",
    "patches": {"images": 1},
}
# A small disk of its own, for this process and its children alone.
ON_A_SMALL_DISK = "mount -t tmpfs -o size=1500k tmpfs results && exec "


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "ablations").mkdir()
    (tmp_path / "ablations" / "few.yaml").write_text("title: Few\nvary: [{method: grid}]\n")
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(STUDY))
    (tmp_path / "results").mkdir()
    return tmp_path


@pytest.fixture
def study(folder, monkeypatch):
    monkeypatch.chdir(folder)
    return load_study(folder / "study.yaml")


def run(folder: Path, *before: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *before, sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"),
            "--configfile", "study.yaml", "--cores", "1",
            "results/pocket/pocket_mme/1-of-1/features.safetensors",
        ],
        cwd=folder, capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def can_mount() -> bool:
    tried = ["unshare", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    try:
        return subprocess.run(tried, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(not can_mount(), reason="no disk can be mounted without privileges here")
def test_the_message_names_the_disk_and_the_study_goes_on_where_there_is_room(folder):
    mounted = ON_A_SMALL_DISK + '"$@"'
    small = run(folder, "unshare", "--map-root-user", "--mount", "sh", "-c", mounted, "sh")
    assert small.returncode
    said = small.stdout + small.stderr
    assert f"The disk at {folder / 'results'} is full: 0 MB of 2 MB are free" in said
    assert "MB more in results. What is finished is kept." in said
    assert run(folder).returncode == 0


def test_only_a_full_disk_is_called_one(study):
    for error in (ValueError("no"), PermissionError(13, "Permission denied")):
        assert full_disk(error, study) is None
    full = OSError(28, "No space left on device")
    rust = Exception("I/O error: No space left on device (os error 28)")
    for error in (full, rust):
        later = RuntimeError("the job failed")
        later.__cause__ = error
        for each in (error, later):
            said = full_disk(each, study)
            assert said is not None and f"The disk at {mount_of(Path())} is full" in said


def test_the_estimate_warns_where_room_is_missing(study, monkeypatch):
    found = estimate(study)
    assert "too little" not in text(found, 1)
    monkeypatch.setattr(Machine, "free", lambda *_: (0, int(found.bytes) - 1))
    assert f"too little: make room on the disk at {mount_of(Path())}, or name" in text(found, 1)
