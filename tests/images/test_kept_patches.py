"""Kept patches in the pixels of the image, held against what every family makes of these."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from builders.family_models import FAMILIES
from builders.video_llava_models import clip
from PIL import Image, ImageColor

import prunesid
from prunesid import families
from prunesid.core.record import Kept
from prunesid.generate.engine import enter
from prunesid.images.medium import CENTER, IMAGE, MAP, PADDED, VIDEO, WHOLE
from prunesid.images.patches import (
    FADE,
    MERGED,
    TILED,
    KeptCrop,
    KeptMedium,
    View,
    arrangement,
    draw,
    group_color,
    kept_media,
)

SIZES = ((160, 90), (90, 161), (120, 120), (300, 64))
CLIPS = ("internvl", "llava_onevision", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "video_llava")


@pytest.fixture(scope="module")
def adapters(tiny_llava, tmp_path_factory):
    found = {
        "llava": families.load(tiny_llava),
        "cropped": families.load(tiny_llava, aspect="crop"),
    }

    def load(family):
        if family not in found:
            folder = tmp_path_factory.mktemp(family) / "model"
            FAMILIES[family](folder, tiny_llava)
            found[family] = families.load(folder)
        return found[family]

    return load


def noise(size, seed=0):
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 60, (*size[::-1], 3), dtype=np.uint8))


def crops_of(adapter, medium):
    """What the tower gets: for each row (H, W), of which its patches are equal parts."""
    inputs = adapter.preprocess([medium])
    ((shown,),) = adapter.encode(inputs).inputs.values()
    name = "pixel_values_videos" if shown.kind == VIDEO else "pixel_values"
    if "qwen" in adapter.model.config.model_type:
        pixels = inputs[name]
        frames, rows, columns = inputs[
            "video_grid_thw" if shown.kind == VIDEO else "image_grid_thw"
        ][0]
        apart = pixels.view(frames, rows // 2, columns // 2, 2, 2, 3, 2, 14, 14).mean(5)[
            :, ..., 0, :, :
        ]
        apart = apart.permute(0, 1, 3, 5, 2, 4, 6)
        return list(apart.reshape(frames, rows * 14, columns * 14))
    pixels = inputs[name if name in inputs else "pixel_values"]
    flat = pixels.reshape(-1, *pixels.shape[-3:]).mean(1)
    if MAP in shown.layout and shown.layout[MAP] and len(shown.rows) > 1:
        # The part of the map that shows the image.
        rows, columns = shown.layout["tiles"]
        tiles = flat[1 : 1 + rows * columns].unflatten(0, (rows, columns))
        whole = tiles.permute(0, 2, 1, 3).flatten(2).flatten(0, 1)
        top, left, bottom, right = (round(edge * flat.shape[1]) for edge in shown.layout["part"])
        return [flat[0], whole[top:bottom, left:right]]
    return list(flat[: len(shown.rows)])


def changed(before, after, crop):
    """The patch of a crop in whose rectangle the changes have their center, and their sum."""
    change = (after - before).abs().double()
    total = float(change.sum())
    if not total:
        return None, 0.0
    sides = change.shape
    row = float((change.sum(1) * (torch.arange(sides[0]) + 0.5)).sum()) / total
    column = float((change.sum(0) * (torch.arange(sides[1]) + 0.5)).sum()) / total
    rows, columns = crop.grid
    return int(row * rows / sides[0]) * columns + int(column * columns / sides[1]), total


def painted(picture, box):
    """The picture with the middle of a box in another color."""
    left, top, right, bottom = box
    pixels = np.array(picture)
    across, down = (right - left) // 4, (bottom - top) // 4
    pixels[top + down : bottom - down, left + across : right - across] = 255
    return Image.fromarray(pixels)


def all_kept(adapter, medium):
    records = adapter.encode(adapter.preprocess([medium]))
    (found,) = kept_media(records.all_tokens(), records)
    return found


def shows(crop, patch, size):
    """Whether a patch shows enough of the image to be painted."""
    left, top, right, bottom = crop.box(patch, size)
    return right - left >= 8 and bottom - top >= 8


def given(adapter, picture):
    """A prompt that shows an image, as the model's processor makes it."""
    visual = adapter.preprocess([picture])
    records = adapter.encode(visual)
    (media,) = records.inputs.values()
    (part,) = enter(adapter, records.all_tokens(), media)
    before, after = adapter.prompt("is there a red circle ?", [IMAGE]).texts
    ids = torch.tensor([[*before, *[adapter.placeholders[IMAGE]] * len(part), *after]])
    visual.pop("pixel_values_squares", None)
    visual.pop("image_tiles", None)
    if adapter.model.config.model_type == "internvl":
        visual.pop("media_types")
    if "qwen" in adapter.model.config.model_type:
        visual["mm_token_type_ids"] = (ids == adapter.placeholders[IMAGE]).long()
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), **visual}


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("family", ["llava", "cropped", *FAMILIES])
def test_a_patch_is_where_the_tower_sees_it(family, size, adapters):
    """Paint is put where a patch lies in the image; the processor's crop changes in that patch."""
    adapter, picture = adapters(family), noise(size)
    kept, before, tried = all_kept(adapter, picture), crops_of(adapter, picture), 0
    assert len(kept.crops) == len(before)
    for number, crop in enumerate(kept.crops):
        assert crop.index == tuple(range(crop.grid[0] * crop.grid[1]))
        for patch in crop.index[:: max(1, len(crop.index) // 6)]:
            if not shows(crop, patch, size):
                continue
            after = crops_of(adapter, painted(picture, crop.box(patch, size)))
            found, total = changed(before[number], after[number], crop)
            assert (found, total > 0) == (patch, True), (number, crop.view)
            tried += 1
    assert tried > 3


@pytest.mark.parametrize("family", CLIPS)
def test_a_patch_of_a_clip_is_in_its_frame(family, adapters):
    adapter, shown = adapters(family), clip(0)
    size = shown.frames.shape[2], shown.frames.shape[1]
    kept, before = all_kept(adapter, shown), crops_of(adapter, shown)
    step = len(shown.frames) // kept.panels
    assert kept.kind == VIDEO and kept.panels == len(kept.crops) == len(before)
    for number in (0, kept.panels - 1):
        crop = kept.crops[number]
        patch = next(p for p in reversed(crop.index) if shows(crop, p, size))
        frames = shown.frames.copy()
        where = crop.box(patch, size)
        frames[number * step] = painted(Image.fromarray(frames[number * step]), where)
        after = crops_of(adapter, replace(shown, frames=frames))
        assert changed(before[number], after[number], crop)[0] == patch
        others = [n for n in range(kept.panels) if n != number]
        assert all(torch.equal(before[n], after[n]) for n in others)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("family", ["llava", "cropped", *FAMILIES])
def test_a_kept_token_lights_exactly_the_pixels_of_its_patch(family, size, adapters):
    adapter, picture = adapters(family), noise(size, seed=1)
    records = adapter.encode(adapter.preprocess([picture]))
    ((medium,),) = records.inputs.values()
    pixels = np.asarray(picture).astype(int)
    sizes = [rows * columns for rows, columns in records.grids]
    for place, row in enumerate(medium.rows):
        patch = sizes[row] // 2
        index = torch.full((len(sizes), 1), -1)
        index[row] = patch
        count = (index >= 0).sum(1)
        (kept,) = kept_media(Kept(torch.zeros(len(sizes), 1, 4), index, count), records)
        crop = kept.crops[place]
        assert kept.tokens == 1 and crop.index == (patch,)
        boxes = kept.boxes(size, crop.panel)
        drawn = np.asarray(draw(picture, kept, frames=False)).astype(int)
        panel = drawn[:, crop.panel * (size[0] + 8) :][:, : size[0]]
        lit = (panel == pixels).all(2)
        expected = np.zeros_like(lit)
        for left, top, right, bottom in boxes:
            expected[top:bottom, left:right] = True
        # Noise of at most 60 is nowhere as bright as what is faded.
        assert np.array_equal(lit, expected)


@pytest.mark.parametrize("kind", [CENTER, WHOLE, PADDED])
@pytest.mark.parametrize("size", [(100, 61), (61, 100), (50, 50)])
def test_patches_neither_overlap_nor_leave_pixels_out(kind, size):
    crop = KeptCrop(View(kind), (7, 9), tuple(range(63)))
    times = np.zeros(size[::-1], int)
    for left, top, right, bottom in (crop.box(patch, size) for patch in crop.index):
        times[top:bottom, left:right] += 1
    assert times.max() == 1
    assert times.sum() == (min(size) ** 2 if kind == CENTER else size[0] * size[1])


def test_tiles_lie_as_the_aspect_ratio_says():
    assert arrangement(6, 1.5) == (2, 3) and arrangement(6, 0.2) == (6, 1)
    tile = KeptCrop(View(TILED, (1, 6), (4,)), (1, 1), (0,))
    assert tile.box(0, (300, 200)) == (100, 100, 200, 200)


@pytest.mark.parametrize("family", ["llava", *FAMILIES])
def test_prune_gives_back_what_it_kept(family, adapters):
    adapter, picture = adapters(family), noise((120, 90))
    inputs = given(adapter, picture)
    how = {"method": "grid", "budget": 8}
    short = prunesid.prune(adapter.model, adapter.processor, inputs, **how)
    (kept,) = short.kept
    records = adapter.encode(adapter.preprocess([picture]))
    own = records.compress("grid", budget=8)
    assert [kept] == kept_media(own, records)
    assert kept.tokens == int(own.count.sum())
    seen = []
    with prunesid.pruned(adapter.model, adapter.processor, kept=seen, **how):
        for _ in range(2):
            adapter.model.generate(**inputs, max_new_tokens=2, do_sample=False)
            assert seen == [kept]
    seen = []
    with prunesid.pruned(adapter.model, adapter.processor, kept=seen, budget=5000):
        adapter.model(**inputs)
    assert all(len(crop.index) == crop.grid[0] * crop.grid[1] for crop in seen[0].crops)
    with (
        pytest.raises(ValueError, match="fastv keeps other tokens in every layer"),
        prunesid.pruned(adapter.model, adapter.processor, "fastv", kept=[]),
    ):
        pass


def test_what_is_kept_comes_in_the_order_of_the_prompts(adapters):
    adapter = adapters("llava")
    pictures = [noise((80, 80), seed) for seed in range(3)]
    texts = [adapter.text("what ?", [IMAGE] * count) for count in (1, 2)]
    inputs = adapter.processor(text=texts, images=pictures, return_tensors="pt", padding=True)
    found = prunesid.prune(adapter.model, adapter.processor, inputs, "cls_topk", 3).kept
    alone = [
        prunesid.prune(
            adapter.model, adapter.processor,
            adapter.processor(text=texts[0], images=[picture], return_tensors="pt"), "cls_topk", 3,
        ).kept[0]
        for picture in pictures
    ]  # fmt: skip
    assert list(found) == alone


def test_a_smaller_image_is_kept_whole(adapters):
    adapter, picture = adapters("qwen2_vl"), noise((160, 90))
    inputs = given(adapter, picture)
    (kept,) = prunesid.prune(adapter.model, adapter.processor, inputs, "downsample", 4).kept
    (crop,) = kept.crops
    assert len(crop.index) == crop.grid[0] * crop.grid[1] == kept.tokens <= 4
    covered = np.zeros((90, 160), int)
    for left, top, right, bottom in kept.boxes(picture.size):
        covered[top:bottom, left:right] += 1
    assert (covered == 1).all()


def test_groups_tint_the_others_and_frame_the_kept():
    picture = Image.new("RGB", (80, 40), "white")
    kept = KeptMedium(IMAGE, 2, (KeptCrop(View(WHOLE), (2, 4), (0,), tuple(range(8)), (5,)),))
    pixels = np.asarray(draw(picture, kept))
    assert tuple(pixels[0, 0]) == group_color(0)
    assert tuple(pixels[10, 10]) == (255, 255, 255)
    assert tuple(pixels[20, 20]) == tuple(bytes.fromhex(MERGED[1:]))
    # Colors of the groups that are not kept differ.
    faded = {tuple(pixels[10, 30 + 20 * n]) for n in range(3)}
    assert len(faded) == 3
    assert len({group_color(group) for group in range(48)}) == 48


def test_what_goes_into_merged_tokens_is_tinted_and_cells_are_framed():
    black = Image.new("RGB", (96, 48))
    members = ((5, 1, 2), (5, 6))
    merged = KeptCrop(View(WHOLE), (2, 4), (), None, (5,), members=members)
    picture = np.asarray(draw(black, KeptMedium(IMAGE, 2, (merged,))))
    colors = [
        picture[24 * row + 12, 24 * column + 12].tolist() for row in (0, 1) for column in range(4)
    ]
    gray, tinted = colors[0], colors[1]
    assert colors == [gray, tinted, tinted, gray, gray, [0, 0, 0], tinted, gray]
    assert tinted[0] > tinted[2] and len(set(gray)) == 1
    cells = KeptCrop(View(WHOLE), (2, 4), (), members=((0, 1, 4, 5), (2, 3, 6, 7)))
    picture = np.asarray(draw(black, KeptMedium(IMAGE, 2, (cells,))))
    framed = (picture == ImageColor.getrgb(MERGED)).all(axis=2)
    assert framed[10, :2].all() and framed[10, 46:50].all() and not framed[10, 20:28].any()
    assert not picture[~framed].any()


def test_what_is_not_kept_is_gray_and_light():
    picture = noise((60, 60))
    kept = KeptMedium(IMAGE, 0, (KeptCrop(View(WHOLE), (2, 2), ()),))
    pixels = np.asarray(draw(picture, kept))
    assert pixels.min() >= int(255 * FADE) and (pixels.max(2) == pixels.min(2)).all()


def test_an_image_is_no_clip():
    image = KeptMedium(IMAGE, 1, (KeptCrop(View(WHOLE), (2, 2), (0,)),))
    with pytest.raises(ValueError, match="draw it on one image"):
        draw([noise((20, 20))], image)
    with pytest.raises(ValueError, match="draw it on all frames"):
        draw(noise((20, 20)), replace(image, kind=VIDEO))
    with pytest.raises(ValueError, match="panel must be one of 0 to 0"):
        image.boxes((20, 20), 1)


def test_frames_of_a_clip_stand_in_rows():
    frames = [Image.new("RGB", (20, 10), (10 * n, 0, 0)) for n in range(10)]
    crops = tuple(KeptCrop(View(WHOLE), (1, 2), (0,), panel=n) for n in range(5))
    drawn = draw(frames, KeptMedium(VIDEO, 5, crops), frames=False)
    assert drawn.size == (4 * 28 - 8, 2 * 18 - 8)
    assert [drawn.getpixel((28 * n + 5, 5))[0] for n in range(4)] == [0, 20, 40, 60]
    assert drawn.getpixel((5, 23))[0] == 80


def test_sub_crops_are_a_picture_beside_the_base_crop(adapters):
    kept = all_kept(adapters("llava_next"), noise((120, 90)))
    assert kept.panels == 2
    assert draw(noise((120, 90)), kept).size == (248, 90)
