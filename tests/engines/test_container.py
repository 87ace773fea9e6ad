"""The container's files, which no test builds: what they copy is there, what they pin agrees."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from builders import study_runs
from builders.study_runs import ROOT

CONTAINERFILE = (ROOT / "Containerfile").read_text()
DEFINITION = (ROOT / "prunesid.def").read_text()
# An Apptainer that mounts nothing: it notes how it is called and runs the command where it stands.
PRETEND = """#!/bin/bash
[ "$1" = --version ] && { echo "apptainer version 1.4.0"; exit; }
echo "PYTHONPATH=$APPTAINERENV_PYTHONPATH $*" >> "$CALLS"
PATH="$PYTHONS:$PATH" exec bash -c "${@: -1}"
"""


def instructions(name: str) -> list[str]:
    """The arguments of one kind of instruction, lines joined."""
    joined = CONTAINERFILE.replace("\\\n", " ")
    return re.findall(rf"^{name} (.*)$", joined, re.MULTILINE)


def test_the_containerfile_has_known_instructions_in_order():
    lines = CONTAINERFILE.replace("\\\n", " ").splitlines()
    names = [line.split()[0] for line in lines if line and not line.startswith("#")]
    assert set(names) <= {"ARG", "FROM", "ENV", "WORKDIR", "COPY", "RUN", "USER", "CMD"}
    assert names[:2] == ["ARG", "FROM"]
    # Nothing runs as root in the end, and nothing is installed after that.
    assert names[-2:] == ["USER", "CMD"]
    assert instructions("USER") == ["study"]


def test_all_that_is_copied_is_in_the_clone():
    copied = [part for line in instructions("COPY") for part in line.split()[:-1]]
    copied += re.findall(r"^    (\S+) /opt/prunesid/\S+$", DEFINITION, re.MULTILINE)
    assert {"requirements.txt", "overrides.txt", "prunesid"} <= set(copied)
    assert [name for name in copied if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("package", ["uv", "torchvision"])
def test_pins_are_those_of_the_makefile(package):
    pins = [
        set(re.findall(rf"\b{package}==([\d.]+)", text))
        for text in ((ROOT / "Makefile").read_text(), CONTAINERFILE, DEFINITION)
    ]
    assert len(pins[0]) == 1
    assert pins[0] == pins[1] == pins[2]


def test_both_start_from_one_pinned_python():
    (version,) = re.findall(r"^ARG PYTHON=(3\.11\.\d+)$", CONTAINERFILE, re.MULTILINE)
    assert instructions("FROM") == ["python:${PYTHON}-slim-bookworm"]
    assert f"From: python:{version}-slim-bookworm\n" in DEFINITION


def test_shell_lines_parse(tmp_path):
    definition = DEFINITION.partition("%post\n")[2].replace("{{ TORCH }}", "cpu")
    for script in [*instructions("RUN"), definition]:
        assert subprocess.run(["bash", "-n"], input=script, text=True).returncode == 0, script


@pytest.mark.slow
def test_snakemake_runs_jobs_in_the_image(tmp_path, monkeypatch):
    pretend, image = tmp_path / "bin" / "apptainer", tmp_path / "prunesid.sif"
    pretend.parent.mkdir()
    pretend.write_text(PRETEND)
    pretend.chmod(0o755)
    monkeypatch.setenv("PATH", f"{pretend.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONS", str(Path(sys.executable).parent))
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    table = "results/quick/pocket/data/pocket_calibration.parquet"
    options = (
        "--workflow-profile", "none", "--cores", "1", "--nolock", "--sdm", "apptainer", "--", table,
    )  # fmt: skip
    with pytest.raises(RuntimeError, match=r"prunesid\.sif is missing: apptainer build"):
        study_runs.run(tmp_path, *options)
    image.touch()
    study_runs.run(tmp_path, *options)
    (call,) = Path(tmp_path / "calls").read_text().splitlines()
    assert call.startswith(f"PYTHONPATH={ROOT} ")
    assert f" {image} " in call
    assert (tmp_path / table).is_file()
