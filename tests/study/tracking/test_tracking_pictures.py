"""Pictures show the kept patches, and nothing is drawn twice."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from prunesid.study.config.arm import VANILLA, make_arm
from prunesid.study.files.question_rows import AskedRow, to_metadata
from prunesid.study.files.scenes import FirstCrop
from prunesid.study.provenance.store import Store
from prunesid.study.tracking.pictures import DROPPED, GAP, Gallery, draw_kept, side_by_side

ASKED = make_arm({"method": "cdpruner"})
ARM, OTHER = make_arm({"budget": 4}), make_arm({"budget": 2, "grouping": "random"}, seed=1)


def test_kept_patches_stay_as_they_are_and_others_go_dark():
    image = Image.new("RGB", (40, 20), (200, 100, 50))
    drawn = draw_kept(image, np.array([3, 0, -1]), (2, 4))
    pixels = np.asarray(drawn, dtype=int)
    patches = pixels.reshape(2, 10, 4, 10, 3).swapaxes(1, 2).reshape(8, 100, 3)
    kept = [(patch == (200, 100, 50)).all() for patch in patches]
    assert kept == [True, False, False, True, False, False, False, False]
    for patch in patches[1:3]:
        assert (np.abs(patch - DROPPED) < 30).all()
    assert draw_kept(image, None, (2, 4)) is image


def test_side_by_side():
    whole = side_by_side([Image.new("RGB", (5, 4), c) for c in ("red", "lime", "blue")])
    assert whole.size == (15 + 2 * GAP, 4)
    row = [whole.getpixel((x, 2)) for x in (0, 5, 5 + GAP, 14 + 2 * GAP)]
    assert row == [(255, 0, 0), (255, 255, 255), (0, 255, 0), (0, 0, 255)]


@pytest.fixture
def opened():
    return []


@pytest.fixture
def gallery(tmp_path, opened):
    store = Store(tmp_path / "store")

    def keys(index: list[list[int]], metadata: dict | None = None) -> str:
        tensors = {"index": torch.tensor(index), "count": torch.tensor([len(i) for i in index])}
        return store.put(
            {"index": index}, lambda path: save_file(tensors, path, metadata), ".safetensors"
        )

    def find(benchmark, question_id, image_id):
        opened.append((benchmark, question_id, image_id))
        return Image.new("RGB", (28, 28), "white")

    chosen = {ARM.name: keys([[0, 1, 2, 3], [4, 5, 6, 7]]), OTHER.name: keys([[0, 1], [2, 3]])}
    rows = [AskedRow("first", "a ?", ("7", "9"), 0), AskedRow("first", "b ?", ("8",), 1)]
    chosen[ASKED.name] = keys([[1], [14]], dict(to_metadata(tuple(rows))))
    crops = {
        name: FirstCrop(chosen, row, (4, 4), "center")
        for row, name in enumerate(("first", "second/../2"))
    }
    return Gallery(tmp_path / "pictures", {"pope": crops}, store, find)


def test_a_picture_shows_its_arms_from_left_to_right(gallery):
    path = gallery.path("pope", "7", "second/../2", (VANILLA, ARM))
    assert path.parent == gallery.folder
    pixels = np.asarray(Image.open(path).convert("L"), dtype=int)
    left, right = pixels[:, :28], pixels[:, 28 + GAP :]
    assert left.min() > 240
    bright = right.reshape(4, 7, 4, 7).mean(axis=(1, 3)) > 200
    assert bright.nonzero()[0].tolist() == [1, 1, 1, 1]


def test_an_arm_that_chooses_by_the_question_shows_what_it_keeps_for_this_one(gallery):
    first, equal, other = (gallery.path("pope", q, "first", (ASKED,)) for q in ("7", "9", "8"))
    assert first == equal != other
    bright = [
        (np.asarray(Image.open(path).convert("L")).reshape(4, 7, 4, 7).mean((1, 3)) > 200).argmax()
        for path in (first, other)
    ]
    assert bright == [1, 14]


def test_nothing_is_drawn_twice(gallery, opened):
    first = gallery.path("pope", "7", "first", (VANILLA, ARM))
    drawn = first.stat().st_mtime_ns
    assert gallery.path("pope", "8", "first", (VANILLA, ARM)) == first
    assert first.stat().st_mtime_ns == drawn
    others = {
        gallery.path("pope", "7", "first", (ARM, OTHER)),
        gallery.path("pope", "7", "first", (OTHER, ARM)),
        gallery.path("pope", "9", "second/../2", (VANILLA, ARM)),
    }
    assert len(others | {first}) == 4
    assert opened == [("pope", "7", "first"), ("pope", "9", "second/../2")]
    gallery.keep_only([first])
    assert list(gallery.folder.iterdir()) == [first]
