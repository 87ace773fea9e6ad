"""A wheel in an empty environment: the library and the lmms-eval plug-in work from any folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from builders.synthetic_scores import ROOT

pytestmark = pytest.mark.slow

PRUNE = """
import sys
from pathlib import Path

import prunesid
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

weights = Path(prunesid.__file__).parent / "pocket" / "weights"
model = AutoModelForImageTextToText.from_pretrained(weights)
processor = AutoProcessor.from_pretrained(weights)
image = Image.new("RGB", (336, 336), "red")
inputs = processor(images=image, text=sys.argv[1], return_tensors="pt")
with prunesid.pruned(model, processor, budget=64):
    answer = model.generate(**inputs, max_new_tokens=4)
print(prunesid.__file__)
print(answer.shape[1] - inputs["input_ids"].shape[1])
"""
STUDY = """
from pathlib import Path
from prunesid.study.config.study import load_study
load_study(Path("study.yaml"))
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """The interpreter of an environment with the wheel and the packages that it needs."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        source.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    shutil.copytree(
        ROOT / "prunesid", source / "prunesid", ignore=shutil.ignore_patterns("__pycache__")
    )
    uv = Path(sysconfig.get_path("scripts")) / "uv"
    quiet = {"check": True, "capture_output": True, "cwd": folder}
    build = [uv, "build", "--wheel", "--offline", "--no-build-isolation", "--out-dir", folder]
    subprocess.run([*build, "--python", sys.executable, source], **quiet)
    shutil.rmtree(source)
    (wheel,) = folder.glob("prunesid-*.whl")
    subprocess.run([uv, "venv", "--offline", "--python", sys.executable, folder / "venv"], **quiet)
    found = folder / "venv" / "bin" / "python"
    install = [uv, "pip", "install", "--offline", "--no-deps", "--python", found, wheel]
    subprocess.run(install, **quiet)
    # A path in a .pth file makes packages visible, but runs no .pth file of theirs: an editable
    # install of the project stays unseen.
    (site,) = (folder / "venv" / "lib").glob("python*/site-packages")
    (site / "project.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    return found


def run(python, *arguments, folder):
    surroundings = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    surroundings |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(folder / "cache")}
    return subprocess.run(
        [python, *arguments], cwd=folder, env=surroundings, capture_output=True, text=True
    )


def test_pruned_answers(python, tmp_path):
    ended = run(python, "-c", PRUNE, "USER: <image>\nWhat color? ASSISTANT:", folder=tmp_path)
    assert ended.returncode == 0, ended.stderr
    place, length = ended.stdout.split("\n")[:2]
    assert Path(place).is_relative_to(python.parents[1])
    assert 1 <= int(length) <= 4


def test_lmms_eval_finds_the_model_and_its_tasks(python, tmp_path):
    package = next(python.parents[1].glob("lib/python*/site-packages/prunesid"))
    ended = run(
        python,
        *("-m", "lmms_eval", "--model", "prunesid", "--batch_size", "2", "--limit", "4"),
        *("--model_args", f"pretrained={package}/pocket/weights,method=prunesid,budget=64"),
        *("--tasks", "pocket_pope", "--include_path", f"{package}/lmms/tasks"),
        *("--output_path", "scores"),
        folder=tmp_path,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    (found,) = (tmp_path / "scores").rglob("*_results.json")
    scores = json.loads(found.read_text())["results"]["pocket_pope"]
    assert any(isinstance(value, float) and 0 <= value <= 1 for value in scores.values())


def test_a_study_says_that_it_needs_a_clone(python, tmp_path):
    (tmp_path / "study.yaml").write_text("benchmarks: [pocket_mme]\n")
    ended = run(python, "-c", STUDY, folder=tmp_path)
    assert ended.returncode == 1
    assert "Studies need a clone of the repository" in ended.stderr
