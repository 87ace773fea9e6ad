"""The command `prunesid`, called as it is on a command line."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from builders.synthetic_scores import ROOT
from PIL import Image

import prunesid
from prunesid.__main__ import parser

COMMANDS = ("methods", "check", "estimate", "run", "draw", "demo")
QUICK = str(ROOT / "configs" / "quick.yaml")
# What a command without results to compute imports would show in its time.
HEAVY = ("torch", "transformers", "pandas", "datasets", "lmms_eval", "matplotlib")
IMPORTS = "import sys; from prunesid.__main__ import main\ntry: main(sys.argv[1:])\nfinally: "
IMPORTS += f"print([n for n in {HEAVY!r} if n in sys.modules], file=sys.stderr)"


def call(*arguments: str, cwd=ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "prunesid", *arguments]
    given = {**os.environ, **environment}
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=given, check=False)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example_that_the_command_takes(command):
    said = call(command, "--help").stdout
    (example,) = re.findall(r"^example:\n  prunesid (.*)$", said, re.MULTILINE)
    given = parser().parse_args(example.split())
    assert given.call.__name__ == command


def test_help_names_every_command():
    said = call("--help").stdout
    assert re.findall(r"^    (\w+) ", said, re.MULTILINE) == list(COMMANDS)


@pytest.mark.parametrize("arguments", [["--help"], ["methods"], ["check", "typo.yaml"]])
def test_what_computes_nothing_imports_nothing_heavy(arguments, tmp_path):
    (tmp_path / "typo.yaml").write_text("titel: T\nbenchmarks: [pocket_mme]\nablations: [budget]\n")
    ended = subprocess.run(
        [sys.executable, "-c", IMPORTS, *arguments], capture_output=True, text=True, cwd=tmp_path
    )
    assert ended.stderr.splitlines()[-1] == "[]", ended.stderr


def test_methods_lists_all_and_shows_one():
    listed = [line.split()[0] for line in call("methods").stdout.splitlines()]
    assert listed == list(prunesid.list_methods())
    one = call("methods", "hired").stdout
    assert "regions = runs  (runs, quadrants)" in one and "HiRED" in one
    wrong = call("methods", "hirde")
    assert wrong.returncode == 1 and "Did you mean 'hired'?" in wrong.stderr


def test_check_says_what_is_missing(tmp_path):
    assert call("check", QUICK).returncode == 0
    (tmp_path / "mine.yaml").write_text("title: T\nbenchmarks: [pocket_mem]\nablations: [budget]\n")
    ended = call("check", "mine.yaml", cwd=tmp_path)
    assert ended.returncode == 1
    assert "mine.yaml:2: benchmarks: Unknown benchmark 'pocket_mem'" in ended.stdout


@pytest.mark.parametrize("model", ["a" * 300, "~nobodyofthisname/m", "a" * 300 + "/m"])
def test_check_says_that_a_path_cannot_be_one(model, tmp_path):
    text = f"title: T\nbenchmarks: [pocket_mme]\nablations: [budget]\nmodel: {model}\nname: m\n"
    (tmp_path / "mine.yaml").write_text(text)
    ended = call("check", "mine.yaml", cwd=tmp_path)
    assert ended.returncode == 1 and "Traceback" not in ended.stderr
    assert "mine.yaml:4: model: " in ended.stdout


@pytest.mark.parametrize("command", ["estimate", "run"])
def test_a_study_that_is_not_valid_is_told_without_a_traceback(command, tmp_path):
    (tmp_path / "mine.yaml").write_text("title: T\nbenchmarks: [pocket_mme]\nablations: [bugdet]\n")
    ended = call(command, "mine.yaml", cwd=tmp_path)
    assert ended.returncode == 1 and "Traceback" not in ended.stderr
    assert "mine.yaml:3: ablations: Unknown ablation 'bugdet'" in ended.stderr


def test_estimate_counts_cores():
    ended = call("estimate", QUICK, "--cores", "3")
    assert "on 3 cores" in ended.stdout or "Nothing is left to do." in ended.stdout
    assert "neither a number of cores nor 'all'" in call("estimate", QUICK, "--cores", "0").stderr


def test_run_lists_the_jobs_of_a_study():
    ended = call("run", QUICK, "--cores", "1", "--dry-run")
    assert ended.returncode == 0, ended.stderr


def test_draw_shows_what_is_kept_of_an_image(tmp_path):
    Image.linear_gradient("L").resize((200, 120)).save(tmp_path / "photo.png")
    ended = call("draw", "photo.png", "--method", "grid", "--budget", "16", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip() == "kept.png"
    drawn = Image.open(tmp_path / "kept.png")
    assert drawn.size == (200, 120)
    for wrong, said in [
        (("--budget", "0"), "'0' is no positive number of tokens"),
        (("--out", "no/kept.png"), "there is no folder no"),
        (("--out", "kept.xyz"), "has to end like a picture's"),
        (("--out", "photo.png"), "is the image itself"),
        (("--method", "fastv"), "fastv keeps other tokens in every layer"),
    ]:
        ended = call("draw", "photo.png", *wrong, cwd=tmp_path)
        assert ended.returncode and said in ended.stderr and "Traceback" not in ended.stderr
    wrong = call("draw", "photo.png", "--method", "gird", cwd=tmp_path)
    assert wrong.returncode == 1 and "Did you mean 'grid'?" in wrong.stderr
    assert "Traceback" not in wrong.stderr
    (tmp_path / "text.png").write_text("no picture")
    assert "text.png: cannot be read as an image" in call("draw", "text.png", cwd=tmp_path).stderr


@pytest.mark.parametrize("model", ["pocket-gemini", "pocket-qwen"])
def test_draw_takes_a_model_whose_processor_transformers_does_not_load(model, tmp_path):
    Image.linear_gradient("L").resize((200, 120)).save(tmp_path / "photo.png")
    ended = call("draw", "photo.png", "--model", model, "--budget", "16", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert Image.open(tmp_path / "kept.png").size == (200, 120)


@pytest.mark.parametrize("value", ["x", "4,2"])
def test_threads_that_are_no_number_are_one_line(value):
    refused = call("check", QUICK, OMP_NUM_THREADS=value)
    assert refused.returncode == 1 and len(refused.stderr.splitlines()) == 1
    assert f"OMP_NUM_THREADS is '{value}'" in refused.stderr
    assert not call("methods", OMP_NUM_THREADS="").returncode


def test_a_home_of_downloads_that_is_a_file_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    for home in (tmp_path / "file", tmp_path / "file" / "below"):
        refused = call("check", QUICK, HF_HOME=str(home))
        assert refused.returncode == 1 and len(refused.stderr.splitlines()) == 1
        assert f"HF_HOME is '{home}'" in refused.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk_is_one_line():
    command = [sys.executable, "-m", "prunesid", "methods"]
    with open("/dev/full", "w") as full:
        refused = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert refused.returncode == 1
    assert refused.stderr == "the output cannot be written: No space left on device\n"


@pytest.mark.skipif(find_spec("gradio") is not None, reason="gradio is installed")
def test_the_demo_says_what_it_needs():
    refused = call("demo")
    assert refused.returncode == 1 and "`make demo` installs it" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
