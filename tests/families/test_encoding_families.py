"""Methods inside the encoder on families with crops, frames or two towers."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from builders.anyres_models import pictures
from builders.family_models import FAMILIES
from builders.tiny_llava import random_images
from builders.video_llava_models import clip

from prunesid import families
from prunesid.families.adapter import kept_crops
from prunesid.families.mini_gemini.mining import PatchInfoMining, patch_of_cells, windows
from prunesid.families.towers.clip_pass import reduce_clip
from prunesid.images.medium import ALWAYS, CLS
from prunesid.methods import encoder
from prunesid.methods.registry import ENCODER, list_methods

METHODS = list_methods(ENCODER)
# Square, wide, tall, small, and too narrow for a row of patches of its own.
SHAPES = ((100, 100), (60, 150), (150, 60), (41, 130), (10, 300), (30, 34))
NEXT = ({}, {"budget_for": "image"}, {"unpad": "before"}, {"newline": "rows"})
CASES = [
    *(("llava_next", options, "images") for options in NEXT),
    ("mini_gemini", {}, "images"),
    ("video_llava", {}, "mixed"),
    ("video_llava", {"frame_cls": "keep"}, "mixed"),
]


@pytest.fixture(scope="module")
def folders(tiny_llava, tmp_path_factory):
    found = {}
    for family in ("llava_next", "mini_gemini", "video_llava"):
        found[family] = tmp_path_factory.mktemp(family) / "model"
        FAMILIES[family](found[family], tiny_llava)
    return found


@pytest.fixture(params=CASES, ids=lambda case: " ".join(map(str, (case[0], *case[1].values()))))
def case(request, folders):
    """An adapter and media for it."""
    family, options, kind = request.param
    media = pictures(SHAPES)
    if kind == "mixed":
        media = [media[0], clip(0), clip(1), media[1], clip(2)]
    return families.load(folders[family], **options), media


def budget_of(adapter, media):
    """A budget that leaves every crop two patches or more, and fewer than half of them."""
    return 40 if any(not hasattr(medium, "convert") for medium in media) else 13


def same(one, other, row, row_alone):
    count = int(one.count[row])
    assert count == int(other.count[row_alone])
    assert torch.equal(one.index[row, :count], other.index[row_alone, :count])
    torch.testing.assert_close(
        one.tokens[row, :count], other.tokens[row_alone, :count], atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("method", METHODS)
def test_with_all_tokens_it_is_the_unmodified_model(case, method):
    adapter, media = case
    inputs, names = adapter.preprocess(media), [f"input {n // 2}" for n in range(len(media))]
    kept, blank = adapter.reduce(inputs, adapter.plans(method, 4000, {}), names)
    records = adapter.encode(inputs, names=names)
    whole = records.all_tokens()
    assert blank.inputs == records.inputs and blank.sizes == records.sizes
    if adapter.options.get("unpad") != "before":
        assert torch.equal(kept.index, whole.index) and torch.equal(kept.count, whole.count)
        torch.testing.assert_close(kept.tokens, whole.tokens, atol=1e-4, rtol=1e-4)
    for number, medium in enumerate(m for own in records.inputs.values() for m in own):
        one, other = (
            adapter.enter(kept_crops(each, medium), medium.layout).embeddings
            for each in (kept, whole)
        )
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3, msg=str(number))


@pytest.mark.parametrize("method", METHODS)
def test_every_crop_leaves_its_share(case, method):
    adapter, media = case
    inputs, budget = adapter.preprocess(media), budget_of(adapter, media)
    kept, blank = adapter.reduce(inputs, adapter.plans(method, budget, {}))
    shares = blank.budgets(budget).tolist()
    for row, (share, count) in enumerate(zip(shares, kept.count.tolist(), strict=True)):
        assert count == share if method == "tome" else min(1, share) <= count <= share, row
    patches = torch.arange(kept.info["selected"].shape[1])
    beyond = patches >= torch.tensor(blank.sizes)[:, None]
    assert not (kept.info["selected"] & beyond).any()
    places = torch.arange(kept.index.shape[1])
    assert (kept.index < 0)[places >= kept.count[:, None]].all()
    assert (kept.tokens == 0)[places >= kept.count[:, None]].all()


@pytest.mark.parametrize("method", METHODS)
def test_a_medium_gives_the_same_alone_and_in_a_batch(case, method):
    adapter, media = case
    plans = adapter.plans(method, budget_of(adapter, media), {})
    kept, blank = adapter.reduce(adapter.preprocess(media), plans)
    for number, medium in enumerate(media):
        alone, own = adapter.reduce(adapter.preprocess([medium]), plans)
        (here,), (there,) = blank.inputs[str(number)], own.inputs["0"]
        assert here.layout == there.layout and here.kind == there.kind
        for row, row_alone in zip(here.rows, there.rows, strict=True):
            same(kept, alone, row, row_alone)


@pytest.mark.parametrize("options", NEXT)
def test_crops_are_encoded_one_by_one(folders, options):
    """LLaVA-NeXT's crops against the tower alone: no batches, no shares from records."""
    adapter = families.load(folders["llava_next"], **options)
    tower, shape = adapter.model.model.vision_tower, adapter.sizes.encoding
    for picture in pictures(SHAPES):
        inputs = adapter.preprocess([picture])
        kept, blank = adapter.reduce(inputs, adapter.plans("tome", 13, {}))
        records = adapter.encode(inputs)
        ((medium,),) = records.inputs.values()
        # 13 = 3 + 3 + 3 + 2 + 2, or shared among the crops that there are.
        wanted = [3, 3, 3, 2, 2][: len(medium.rows)]
        if options.get("budget_for") == "image":
            wanted = blank.budgets(13).tolist()
            assert sum(wanted) == min(13, sum(records.sizes))
        parts = medium.parts((adapter.side, adapter.side), options.get("unpad") == "before")
        for row, part in enumerate(parts):
            if not part.size:
                assert kept.count[row] == 0
                continue
            plan = encoder.plan("tome", replace(shape, shown=part), wanted[row])
            alone = reduce_clip(tower, inputs["pixel_values"][0, [row]], plan).kept
            own = part.patches(adapter.side)
            index = torch.where(alone.index < 0, -1, own[alone.index.clamp(min=0)])
            same(kept, replace(alone, index=index), row, 0)


def test_tokens_of_no_patch_stand_after_the_map(folders):
    plain, rows = (
        families.load(folders["llava_next"], newline=newline) for newline in ("drop", "rows")
    )
    inputs = plain.preprocess(pictures([(100, 100)]))
    newline = rows.model.model.image_newline
    for method in METHODS:
        plans = plain.plans(method, 60, {"order": "raster"} if method == "tome" else {})
        entered = []
        for adapter in (plain, rows):
            kept, blank = adapter.reduce(inputs, plans)
            ((medium,),) = blank.inputs.values()
            crops = kept_crops(kept, medium)
            entered.append(adapter.enter(crops, medium.layout).embeddings)
        one, other = entered
        own = torch.cat([crop.index for crop in crops[1:]])
        lines = (other == newline).all(dim=1)
        assert len(other) == len(one) + lines.sum()
        merged = one[len(crops[0].index) :][own < 0]
        # They come last, crop after crop, and have no newlines among or after them.
        torch.testing.assert_close(other[len(other) - len(merged) :], merged)
        assert lines.any() == (method == "tome")
        assert not lines[len(other) - len(merged) :].any()


@pytest.mark.parametrize("family", ["llava_next", "mini_gemini", "video_llava"])
@pytest.mark.parametrize("method", METHODS)
def test_bfloat16(folders, family, method):
    adapter = families.load(folders[family], dtype="bfloat16")
    inputs = adapter.preprocess(pictures(SHAPES))
    kept, _ = adapter.reduce(inputs, adapter.plans(method, 13, {}))
    assert kept.tokens.dtype == torch.bfloat16 and kept.tokens.isfinite().all()


# Video-LLaVA


@pytest.mark.parametrize("method", METHODS)
def test_the_class_token_of_a_frame_is_that_of_its_pass(folders, method):
    adapter = families.load(folders["video_llava"], frame_cls="keep")
    inputs = adapter.preprocess([clip(0), clip(1)])
    kept, blank = adapter.reduce(inputs, adapter.plans(method, 40, {}))
    assert all(m.layout[CLS] == ALWAYS for own in blank.inputs.values() for m in own)
    assert kept.count.eq(5).all() and kept.index[:, 0].eq(-1).all()
    tower, frames = adapter.model.model.video_tower, inputs["pixel_values_videos"].flatten(0, 1)
    left = reduce_clip(tower, frames, encoder.plan(method, adapter.sizes.encoding, 4))
    torch.testing.assert_close(kept.tokens[:, 0], left.cls)
    torch.testing.assert_close(kept.tokens[:, 1:], left.kept.tokens)
    with pytest.raises(ValueError, match="no place for a patch beside its CLS"):
        adapter.reduce(inputs, adapter.plans("downsample", 8, {}))


def test_a_share_below_what_halving_leaves_is_refused(folders):
    adapter = families.load(folders["video_llava"])
    inputs = adapter.preprocess([clip(0)])
    with pytest.raises(ValueError, match="budget 1: .* leave at least 2 of 16"):
        adapter.reduce(inputs, adapter.plans("tome", 8, {}))
    crops = families.load(folders["llava_next"])
    with pytest.raises(ValueError, match="budget 9 shared among 5 crops: budget 1"):
        crops.plans("tome", 9, {})


# Mini-Gemini


@pytest.fixture(scope="module")
def mining():
    torch.manual_seed(0)
    found = PatchInfoMining(8, 6).double()
    for parameter in found.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    return found.requires_grad_(False)


def test_tokens_of_one_patch_mine_as_the_model_does(mining):
    tokens, cells = torch.randn(3, 16, 8).double(), torch.randn(3, 6, 12, 12).double()
    shuffled = torch.stack([torch.randperm(16) for _ in range(3)])
    own = tokens.gather(1, shuffled.argsort(1)[:, :, None].expand(-1, -1, 8))
    found = mining.together(own, shuffled, cells)
    place = shuffled[:, :, None].expand(-1, -1, 8)
    # The model takes its softmax in float32.
    torch.testing.assert_close(found.gather(1, place), mining(tokens, cells), atol=1e-5, rtol=1e-5)


def test_a_merged_token_attends_to_the_cells_of_all_its_patches(mining):
    tokens, cells = torch.randn(2, 3, 8).double(), torch.randn(2, 6, 12, 12).double()
    holder = torch.tensor([[0, 1, 2] * 5 + [0], [2] * 7 + [1, 0] + [2] * 7])
    found = mining.together(tokens, holder, cells)
    for image in range(2):
        covered = windows(cells, 4)[image]
        for token in range(3):
            mine = covered[holder[image] == token].flatten(0, 1)
            scores = mining.key(mine) @ mining.query(tokens[image, token]) / 8**0.5
            plain = scores.softmax(0) @ mining.value(mine)
            torch.testing.assert_close(found[image, token], plain)


def test_cells_that_patches_share_go_by_their_centers():
    assert patch_of_cells(4, 4, 2).view(4, 4).tolist() == [[0, 0, 1, 1]] * 2 + [[2, 2, 3, 3]] * 2
    # Of 5 cells the middle one begins the second half.
    assert patch_of_cells(2, 5, 2).tolist() == [0, 0, 1, 1, 1, 2, 2, 3, 3, 3]
    counts = patch_of_cells(192, 192, 11).bincount()
    assert len(counts) == 121 and counts.min() >= 17**2 and counts.max() <= 18**2


@pytest.mark.parametrize("method", METHODS)
def test_mini_gemini_mines_for_what_its_first_tower_leaves(folders, method):
    adapter = families.load(folders["mini_gemini"])
    inputs = adapter.preprocess(random_images(3, size=80))
    kept, _ = adapter.reduce(inputs, adapter.plans(method, 5, {}))
    model = adapter.model.model
    plan = encoder.plan(method, adapter.sizes.encoding, 5)
    left = reduce_clip(model.vision_tower, inputs["pixel_values"], plan)
    cells = model.vision_tower_aux(inputs["pixel_values_aux"])
    tokens = left.kept.tokens + model.mining.together(left.kept.tokens, left.holder, cells)
    torch.testing.assert_close(kept.tokens, tokens)
    assert (kept.tokens - left.kept.tokens).abs().max() > 1e-2
