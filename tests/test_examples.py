"""The examples run as they stand, each in a process of its own, on Pocket-LLaVA."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prunesid.pocket import WEIGHTS
from prunesid.pocket.drawing import draw
from prunesid.pocket.scenes import sample_scene

EXAMPLES = Path(__file__).parents[1] / "examples"
QUESTION = "is there a red circle ?"


@pytest.fixture
def photo(tmp_path):
    draw(sample_scene(np.random.default_rng(3)))[0].save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def run(script, photo, *more):
    found = subprocess.run(
        [sys.executable, str(EXAMPLES / script), str(photo), QUESTION, str(WEIGHTS), *more],
        cwd=photo.parent, env=os.environ | {"HF_HUB_OFFLINE": "1"}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    return found.stdout.splitlines()


@pytest.mark.parametrize(
    ("script", "picture"), [("prune_your_model.py", "kept.png"), ("your_own_method.py", "own.png")]
)
def test_a_model_is_pruned_and_drawn(script, picture, photo):
    assert run(script, photo)[-1].strip() in ("yes", "no")
    before, after = (np.asarray(Image.open(path)) for path in (photo, photo.parent / picture))
    assert before.shape == after.shape
    # Of 24 x 24 patches of 14 x 14 pixels 64 stay; frames are a pixel wide.
    inner = (before == after).all(2).reshape(24, 14, 24, 14)[:, 1:-1, :, 1:-1].all((1, 3))
    assert inner.sum() == 64


def test_five_methods_are_compared(photo):
    lines = run("compare_methods.py", photo, "--budget", "32")
    names = ["all tokens", "prunesid", "divprune", "visionzip", "cls_topk", "grid"]
    assert [line[:12].strip() for line in lines[-6:]] == names
    assert all(line.endswith("(32 tokens)") for line in lines[-4:])
    size = Image.open(photo).size
    drawn = Image.open(photo.parent / "compared.png")
    assert drawn.size == (3 * size[0] + 16, 2 * size[1] + 8)
