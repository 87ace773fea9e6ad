"""Differences of Qwen2.5-VL; the rest of its adapter is in test_models_qwen2_vl."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from builders.qwen_models import clip, picture, save_tiny_qwen

from prunesid import families
from prunesid.core.needs import Needs
from prunesid.images.media import Clip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("qwen2_5_vl")
    save_tiny_qwen(folder, "qwen2_5_vl")
    return folder


@pytest.fixture(scope="module")
def adapter(folder):
    return families.load(folder)


def test_windows_reorder_the_patches_and_the_record_has_them_in_raster_order(adapter):
    """One patch that changes is seen, in the first block, in its own window and nowhere else."""
    image = picture(84, 112)
    changed = image.copy()
    changed.paste((255, 0, 0), (3 * 28, 28, 4 * 28, 2 * 28))  # row 1, column 3 of 3 x 4
    order = adapter.tower_order(torch.tensor([[1, 6, 8]]))
    assert order.tolist() == [0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 10, 11]
    needs = Needs(layers=frozenset({0}))
    before, after = (
        adapter.encode(adapter.preprocess([each]), needs).single for each in (image, changed)
    )
    moved = (before.hidden[0] - after.hidden[0]).abs().amax(dim=2)[0] > 1e-6
    window = torch.zeros(3, 4, dtype=torch.bool)
    window[:2, 2:] = True
    assert torch.equal(moved.unflatten(0, (3, 4)), window)


def test_frames_stand_as_far_apart_as_their_seconds(adapter):
    """4 tokens per second, the tower's default, rounded down."""
    record = {}
    for fps in (1.0, 8.0, 30.0):
        shown = clip(6, 56, 84)
        shown = Clip(shown.frames, shown.indices, shown.total, fps)
        inputs = adapter.preprocess([shown])
        assert inputs["second_per_grid_ts"].dtype == torch.float32
        assert inputs["second_per_grid_ts"].tolist() == pytest.approx([2 * 4 / fps])
        records = adapter.encode(inputs)
        (medium,) = records.inputs["0"]
        crops = [families.adapter.Crop(torch.zeros(6, 48), torch.arange(6)) for _ in range(3)]
        record[fps] = adapter.enter(crops, medium.layout)
    times = {fps: own.positions[0].unique().tolist() for fps, own in record.items()}
    assert times == {1.0: [0, 32, 64], 8.0: [0, 4, 8], 30.0: [0, 1, 2]}
    # The text comes after the rows and columns, wherever time has got to.
    assert {own.span for own in record.values()} == {3}
    assert torch.equal(record[1.0].positions[1:], record[30.0].positions[1:])


def test_images_have_no_seconds(adapter):
    inputs = adapter.preprocess([picture(56, 84)])
    assert "second_per_grid_ts" not in inputs
    (medium,) = adapter.encode(inputs).inputs["0"]
    json.dumps(dict(medium.layout))
    assert medium.layout["seconds"] is None


def test_the_last_block_must_see_the_whole_image(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    config = json.loads(path.read_text())
    config["vision_config"]["fullatt_block_indexes"] = [1]
    path.write_text(json.dumps(config))
    with pytest.raises(
        ValueError, match=r"last block, 3, must attend to the whole image, as block"
    ):
        families.load(tmp_path / "model")
