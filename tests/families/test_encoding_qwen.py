"""Smaller images on Qwen2-VL and Qwen2.5-VL, against the unmodified models on them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from builders.qwen_models import clip, picture, save_tiny_qwen, whole_prompt
from transformers import AutoModelForImageTextToText

import prunesid
from prunesid import families
from prunesid.core.record import GRID
from prunesid.families.adapter import kept_crops
from prunesid.families.inputs.qwen import shrink
from prunesid.images.medium import IMAGE, VIDEO
from prunesid.methods.encoder.downsample import smaller_grid

QUESTION = "is there a red circle ?"
MEDIA = {
    "image": [picture(84, 140)],
    "tall image": [picture(230, 90)],
    "clip": [clip(5)],
    "clip, image and clip": [clip(4), picture(84, 112, 3), clip(2, 56, 90, 4)],
}


@pytest.fixture(scope="module", params=["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def folder(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    save_tiny_qwen(folder, request.param)
    return folder


@pytest.fixture(scope="module")
def adapter(folder):
    return families.load(folder)


@pytest.fixture(scope="module")
def plain(folder):
    return AutoModelForImageTextToText.from_pretrained(folder).eval()


def kinds_of(media):
    return [IMAGE if hasattr(medium, "convert") else VIDEO for medium in media]


@pytest.mark.parametrize("whole", [(24, 24), (23, 17), (1, 40), (40, 1), (3, 30), (5, 6)])
def test_a_smaller_grid_keeps_the_aspect_ratio(whole):
    rows, columns = whole
    for budget in range(1, rows * columns):
        r, c = smaller_grid(whole, budget)
        assert 1 <= r <= rows and 1 <= c <= columns and r * c <= budget
        assert r == max(1, round(c * rows / columns)) or c == max(1, round(r * columns / rows))
        # No grid of that ratio is larger.
        for other in range(1, columns + 1):
            count = other * max(1, round(other * rows / columns))
            assert count <= r * c or count > budget
    assert smaller_grid((24, 24), 64) == (8, 8) and smaller_grid((24, 24), 128) == (11, 11)
    assert smaller_grid((17, 23), 100) == (8, 11)


def test_patches_become_those_of_the_resized_image():
    vision = SimpleNamespace(spatial_merge_size=2, patch_size=3, temporal_patch_size=2)
    generator = torch.Generator().manual_seed(0)

    def patches_of(pixels):
        """(frames * 2, 3, H, W) -> patches, one by one, in the order of a Qwen image processor."""
        found = []
        frames, rows, columns = len(pixels) // 2, pixels.shape[2] // 3, pixels.shape[3] // 3
        for frame in range(frames):
            for row in range(0, rows, 2):
                for column in range(0, columns, 2):
                    for r, c in ((row + i, column + j) for i in (0, 1) for j in (0, 1)):
                        own = pixels[
                            2 * frame : 2 * frame + 2, :, 3 * r : 3 * r + 3, 3 * c : 3 * c + 3
                        ]
                        found.append(own.transpose(0, 1).flatten())
        return torch.stack(found)

    one = torch.rand(2, 3, 24, 36, generator=generator)
    two = torch.rand(4, 3, 12, 18, generator=generator)
    small = torch.nn.functional.interpolate(one, (12, 24), mode="bicubic", antialias=True)
    grids, targets = [[1, 8, 12], [2, 4, 6]], [[1, 4, 8], [2, 4, 6]]
    given = torch.cat([patches_of(one), patches_of(two)])
    found = shrink(given, grids, targets, vision)
    torch.testing.assert_close(found, torch.cat([patches_of(small), patches_of(two)]))
    assert torch.equal(shrink(given, grids, grids, vision), given)


@pytest.mark.parametrize("shown", MEDIA)
@pytest.mark.parametrize("budget", [2, 5, 9])
def test_it_is_the_unmodified_model_on_smaller_media(adapter, plain, shown, budget):
    media = MEDIA[shown]
    budget *= max(len(m.frames) for m in media if hasattr(m, "frames")) if "clip" in shown else 1
    inputs, kinds = adapter.preprocess(media), kinds_of(media)
    kept, blank = adapter.reduce(inputs, adapter.plans("downsample", budget, {}))
    ordered = [medium for own in blank.inputs.values() for medium in own]
    grids = [kept_crops(kept, medium)[0].grid for medium in ordered]
    smaller = dict(inputs)
    for kind, pixels, name in (
        (IMAGE, "pixel_values", "image_grid_thw"),
        (VIDEO, "pixel_values_videos", "video_grid_thw"),
    ):
        if pixels in inputs:
            targets = [
                [len(medium.rows), 2 * grid[0], 2 * grid[1]]
                for medium, grid in zip(ordered, grids, strict=True)
                if medium.kind == kind
            ]
            for before, after in zip(inputs[name].tolist(), targets, strict=True):
                assert after[0] * after[1] * after[2] // 4 <= budget
                assert before[1] >= after[1] and before[2] >= after[2]
            smaller[pixels] = shrink(
                inputs[pixels], inputs[name].tolist(), targets, adapter.tower.config
            )
            smaller[name] = torch.tensor(targets)
    words = adapter.processor.tokenizer
    wanted = whole_prompt(words, adapter.merge_size, kinds, QUESTION, smaller)
    given = whole_prompt(words, adapter.merge_size, kinds, QUESTION, inputs)
    short = prunesid.prune(plain, adapter.processor, given, "downsample", budget)
    assert torch.equal(short["input_ids"], wanted["input_ids"])
    with torch.no_grad():
        torch.testing.assert_close(
            plain(**short).logits, plain(**wanted).logits, atol=1e-3, rtol=1e-3
        )


def test_a_budget_of_all_tokens_changes_nothing(adapter):
    media = MEDIA["clip, image and clip"]
    inputs = adapter.preprocess(media)
    kept, blank = adapter.reduce(inputs, adapter.plans("downsample", 4000, {}), ["a", "b", "b"])
    records = adapter.encode(inputs, names=["a", "b", "b"])
    whole = records.all_tokens()
    assert blank.inputs == records.inputs and blank.sizes == records.sizes
    assert torch.equal(kept.index, whole.index) and torch.equal(kept.tokens, whole.tokens)
    for medium in (medium for own in records.inputs.values() for medium in own):
        one, other = (adapter.parts(kept_crops(k, medium), medium.layout) for k in (kept, whole))
        for mine, theirs in zip(one, other, strict=True):
            assert torch.equal(mine.positions, theirs.positions) and mine.span == theirs.span


def test_a_medium_gives_the_same_alone_and_in_a_batch(adapter):
    media, plans = MEDIA["clip, image and clip"], adapter.plans("downsample", 6, {})
    kept, blank = adapter.reduce(adapter.preprocess(media), plans)
    assert kept.index.eq(-1).any()
    for number, medium in enumerate(media):
        alone, own = adapter.reduce(adapter.preprocess([medium]), plans)
        rows, (there,) = list(blank.inputs[str(number)][0].rows), own.inputs["0"]
        assert torch.equal(kept.info[GRID][rows], alone.info[GRID])
        count = int(alone.count[0])
        assert kept.count[rows].eq(count).all() and len(there.rows) == len(rows)
        torch.testing.assert_close(
            kept.tokens[rows, :count], alone.tokens[:, :count], atol=1e-4, rtol=1e-4
        )


def test_tome_is_refused_with_the_families_that_it_runs_on(adapter):
    with pytest.raises(ValueError, match="tome acts .* runs on: llava, .*, video_llava\\.$"):
        adapter.plans("tome", 5, {})
    with pytest.raises(ValueError, match="tokens cannot be shared"):
        adapter.reduce(adapter.preprocess([clip(5)]), adapter.plans("downsample", 2, {}))
