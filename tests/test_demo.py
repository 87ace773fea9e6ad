"""The demo answers and draws on Pocket-LLaVA, and holds its limits."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prunesid.pocket.drawing import draw
from prunesid.pocket.scenes import sample_scene

gr = pytest.importorskip("gradio")
PATH = Path(__file__).parents[1] / "examples" / "demo" / "app.py"
QUESTION = "is there a red circle ?"


@pytest.fixture(scope="module")
def app():
    spec = importlib.util.spec_from_file_location("demo", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def photo(tmp_path):
    draw(sample_scene(np.random.default_rng(3)))[0].save(tmp_path / "photo.png")
    return str(tmp_path / "photo.png")


def test_methods_answer_side_by_side(app, photo):
    methods = ["prunesid", "tome", "fastv"]
    pictures, rows = app.run_methods(app.POCKETS, photo, QUESTION, "pocket", methods, 128)
    assert [row[0] for row in rows] == [app.ALL, *methods]
    assert {len(row) for row in rows} == {len(app.COLUMNS)}
    assert all(row[1] in ("yes", "no") for row in rows)
    assert [row[2] for row in rows[:3]] == ["576", "128", "128"] and float(rows[3][2]) <= 128
    # fastv keeps other tokens in every layer: no picture.
    assert [label.split(":")[0] for _, label in pictures] == [app.ALL, "prunesid", "tome"]
    _, rows = app.run_methods(app.POCKETS, photo, QUESTION, "pocket", ["fastv"], 8)
    assert rows[1][1].startswith("not possible here: budget 8")


def test_what_is_too_much_is_refused(app, photo, tmp_path):
    ask = app.run_methods
    for given in (
        (None, QUESTION, "pocket", [], 64), (photo, " ", "pocket", [], 64),
        (photo, "a" * 501, "pocket", [], 64), (photo, QUESTION, "../other", [], 64),
        (photo, QUESTION, "pocket", ["grid"] * 9, 64), (photo, QUESTION, "pocket", [], 0),
    ):  # fmt: skip
        with pytest.raises(gr.Error):
            ask(app.POCKETS, *given)
    Image.new("RGB", (8, 8)).save(tmp_path / "page.eps")
    (tmp_path / "page.eps").rename(tmp_path / "page.png")
    with pytest.raises(gr.Error, match="cannot be read"):
        app.read(str(tmp_path / "page.png"))


def test_the_page_is_built(app, tmp_path):
    page = app.build(app.POCKETS, tmp_path)
    assert [path.name for path in sorted(tmp_path.iterdir())] == [
        f"scene-{seed}.png" for seed in (3, 4, 5)
    ]
    assert not page.analytics_enabled
