"""Methods that act in or before the encoder: their plans, the matching, the pass, the adapters."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from builders.family_models import FAMILIES
from builders.reference_encoding import tome as plain_tome
from builders.tiny_llava import random_images
from builders.tiny_parts import clip_vision
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPVisionModel

import prunesid
from prunesid import families
from prunesid.core.costs import EncoderShape, Transformer
from prunesid.core.needs import Needs
from prunesid.core.rectangle import Box
from prunesid.families.declared import families_of
from prunesid.families.towers.clip import read_clip
from prunesid.families.towers.clip_pass import reduce_clip
from prunesid.methods import encoder
from prunesid.methods.encoder import Plan
from prunesid.methods.encoder.merging import match, merge
from prunesid.methods.encoder.tome import even_schedule
from prunesid.methods.registry import ENCODER, list_methods

LLAVA = EncoderShape(layers=24, read=23, side=24)
TINY = EncoderShape(layers=4, read=3, side=4)


@pytest.fixture(scope="module")
def tower():
    torch.manual_seed(0)
    model = CLIPVisionModel(clip_vision()).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.double()


@pytest.fixture(scope="module")
def pixels():
    return torch.randn(5, 3, 56, 56, generator=torch.Generator().manual_seed(1)).double()


# Plans


@pytest.mark.parametrize("left", [192, 128, 64])
def test_tome_spreads_its_merges_evenly_over_the_blocks_that_are_read(left):
    plan = encoder.plan("tome", LLAVA, left)
    assert plan.tokens == left and len(plan.merged) == 23
    assert max(plan.merged) - min(plan.merged) == 1
    assert list(plan.merged) == sorted(plan.merged, reverse=True)


@pytest.mark.parametrize("blocks", [1, 2, 5, 11])
def test_no_block_merges_more_than_half(blocks):
    for left in range(1, 577):
        if left * 2**blocks < 576:
            with pytest.raises(ValueError, match=f"at least {-(-576 // 2**blocks)} of 576"):
                even_schedule(576, left, blocks)
            continue
        entering = Plan(24, even_schedule(576, left, blocks)).entering
        assert entering[0] == 576 and entering[-1] == left
        assert all(0 <= a - b <= a // 2 for a, b in pairwise(entering))


def test_where_halving_bounds_the_last_blocks_the_others_share_the_rest():
    assert even_schedule(576, 64, 5) == (112, 112, 112, 112, 64)


@pytest.mark.parametrize(("budget", "tokens"), [(64, 64), (128, 121), (192, 169), (1, 1)])
def test_a_smaller_image_is_the_largest_square_within_the_budget(budget, tokens):
    plan = encoder.plan("downsample", LLAVA, budget)
    assert plan.tokens == tokens and not any(plan.merged)


@pytest.mark.parametrize("method", list_methods(ENCODER))
def test_a_budget_of_all_patches_changes_nothing(method):
    for budget in (576, 1000):
        assert encoder.plan(method, LLAVA, budget) == Plan(24, (0,) * 23)
    for budget in (0, -1, 2.5, True):
        with pytest.raises(ValueError, match="positive number of tokens"):
            encoder.plan(method, LLAVA, budget)


def test_wrong_names_and_values_name_the_choices():
    assert list(list_methods(ENCODER)) == ["downsample", "tome"]
    with pytest.raises(ValueError, match="Did you mean 'tome'"):
        encoder.plan("tom", LLAVA, 64)
    with pytest.raises(ValueError, match="Did you mean 'order'.*proportional"):
        encoder.plan("tome", LLAVA, 64, ordr="split")
    with pytest.raises(ValueError, match="raster, split"):
        encoder.plan("tome", LLAVA, 64, order="row")
    with pytest.raises(ValueError, match="parameter of downsample"):
        encoder.plan("downsample", LLAVA, 64, order="raster")


def test_a_share_that_no_crop_can_have_is_refused_at_once():
    shape = EncoderShape(layers=4, read=3, side=24)
    assert encoder.plans("tome", shape, 360, crops=5).of(72).tokens == 72
    with pytest.raises(ValueError, match="359 shared among 5 crops: budget 71: .* least 72 of 576"):
        encoder.plans("tome", shape, 359, crops=5)
    assert encoder.plans("tome", shape, 359).of(359) == encoder.plan("tome", shape, 359)
    with pytest.raises(ValueError, match="raster, split"):
        encoder.plans("tome", shape, 359, crops=5, order="row")


# Matching


def test_the_most_similar_pairs_merge_into_means_of_their_patches():
    # CLS, then A and B alternately: 2 is like 3, 4 is like 1, 6 is like nothing.
    metric = torch.tensor(
        [[1, 0, 0], [0, 1, 0.3], [0, 0, 1], [0, 0.01, 1], [0, 1, 0], [1, 1, 1], [1, -1, -1]]
    )
    tokens = torch.arange(7.0)[None, :, None]
    size = torch.tensor([[1.0, 1, 2, 1, 1, 1, 1]])
    found = match(metric[None], 2)
    assert found.stay.tolist() == [[0, 3]] and found.go.tolist() == [[1, 2]]
    assert found.to.tolist() == [[1, 0]]
    merged, sizes = merge(tokens, size, found)
    assert merged[0, :, 0].tolist() == pytest.approx([0, 6, 2.5, 7 / 3, 5])
    assert sizes.tolist() == [[1, 1, 2, 3, 1]]
    assert found.places(7).tolist() == [[0, 2, 3, 3, 2, 4, 1]]


def test_the_class_token_stays_whatever_it_is_like():
    metric = torch.ones(2, 9, 4)
    found = match(metric, 4)
    assert found.stay.tolist() == [[0]] * 2 and found.go.tolist() == [[1, 2, 3, 4]] * 2


# The pass


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_without_merges_it_is_the_tower_s_own_pass(tower, pixels, dtype):
    own = CLIPVisionModel(clip_vision()).eval().to(dtype)
    own.load_state_dict(tower.state_dict())
    kept = reduce_clip(own, pixels, Plan(4, (0, 0, 0))).kept
    features = read_clip(own, pixels, 2, Needs()).features
    torch.testing.assert_close(kept.tokens, features, atol=1e-5, rtol=1e-5)
    assert kept.index.tolist() == [list(range(16))] * 5
    assert not kept.info["selected"].any()


@pytest.mark.parametrize("budget", [2, 3, 5, 8, 15])
@pytest.mark.parametrize("params", [{}, {"proportional": False}, {"order": "raster"}])
def test_it_agrees_with_a_plain_reference(tower, pixels, budget, params):
    plan = encoder.plan("tome", TINY, budget, **params)
    kept = reduce_clip(tower, pixels, plan).kept
    assert kept.tokens.shape == (5, budget, 32) and kept.count.tolist() == [budget] * 5
    with torch.no_grad():
        embedded = tower.embeddings(pixels).numpy()
    for row, image in enumerate(embedded[:3]):
        expected = plain_tome(tower, image, plan.merged, plan.proportional)
        if plan.raster:
            expected.sort(key=lambda found: min(found[1]))
        tokens = torch.tensor([token.tolist() for token, _ in expected], dtype=torch.float64)
        torch.testing.assert_close(kept.tokens[row], tokens, atol=1e-9, rtol=1e-9)
        sources = [patches for _, patches in expected]
        assert sorted(patch for patches in sources for patch in patches) == list(range(16))
        assert kept.index[row].tolist() == [p[0] if len(p) == 1 else -1 for p in sources]
        firsts = sorted(min(p) for p in sources if len(p) > 1)
        assert kept.info["selected"][row].nonzero()[:, 0].tolist() == firsts
        into = kept.info["merged_into"][row]
        for number, patches in enumerate(sources):
            members = (into == number).nonzero()[:, 0].tolist()
            assert members == (sorted(patches) if len(patches) > 1 else [])


def test_proportional_attention_matters_only_after_a_merge(tower, pixels):
    one, other = (
        reduce_clip(tower, pixels, Plan(4, (0, 0, 5), proportional)).kept.tokens
        for proportional in (True, False)
    )
    assert torch.equal(one, other)
    one, other = (
        reduce_clip(tower, pixels, Plan(4, (5, 0, 0), proportional)).kept.tokens
        for proportional in (True, False)
    )
    assert (one - other).abs().max() > 1e-3


@pytest.mark.parametrize("method", list_methods(ENCODER))
def test_an_image_gives_the_same_alone_and_in_a_batch(tower, pixels, method):
    plan = encoder.plan(method, TINY, 5)
    together = reduce_clip(tower, pixels, plan).kept
    for row in range(len(pixels)):
        alone = reduce_clip(tower, pixels[row : row + 1], plan).kept
        torch.testing.assert_close(alone.tokens[0], together.tokens[row], atol=1e-10, rtol=1e-10)
        assert torch.equal(alone.index[0], together.index[row])


def test_a_smaller_image_is_what_transformers_makes_of_it(tower, pixels):
    kept = reduce_clip(tower, pixels, encoder.plan("downsample", TINY, 11)).kept
    small = torch.nn.functional.interpolate(
        pixels.float(), (42, 42), mode="bicubic", antialias=True
    )
    with torch.no_grad():
        states = tower(small, interpolate_pos_encoding=True, output_hidden_states=True)
    torch.testing.assert_close(kept.tokens, states.hidden_states[-2][:, 1:])
    assert kept.tokens.shape == (5, 9, 32) and kept.index.eq(-1).all()
    assert not kept.info["selected"].any()


# A crop with padding


BOXES = (Box(1, 0, 3, 4), Box(0, 1, 4, 2), Box(0, 0, 4, 3))


def patches_of(box):
    rows, columns = range(box.top, box.bottom), range(box.left, box.right)
    return [4 * row + column for row in rows for column in columns]


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("method", list_methods(ENCODER))
def test_all_patches_beside_the_padding_are_those_of_the_tower(tower, pixels, box, method):
    plan = encoder.plan(method, replace(TINY, shown=box), box.size)
    left = reduce_clip(tower, pixels, plan)
    record = read_clip(tower, pixels, 2, Needs())
    torch.testing.assert_close(left.kept.tokens, record.features[:, patches_of(box)])
    torch.testing.assert_close(left.cls, record.cls)
    assert left.kept.index.tolist() == [list(range(box.size))] * 5


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("left", [1, 2, 3])
def test_padding_is_seen_and_never_merged(tower, pixels, box, left):
    plan = encoder.plan("tome", replace(TINY, shown=box), 1 + left)
    kept = reduce_clip(tower, pixels, plan).kept
    shown = patches_of(box)
    padding = [patch for patch in range(16) if patch not in shown]
    with torch.no_grad():
        embedded = tower.embeddings(pixels).numpy()
    for row in range(len(pixels)):
        plain = plain_tome(tower, embedded[row], plan.merged, padding=padding)
        tokens = torch.tensor([token.tolist() for token, _ in plain], dtype=torch.float64)
        torch.testing.assert_close(kept.tokens[row], tokens, atol=1e-9, rtol=1e-9)
        alone = [shown.index(own[0]) if len(own) == 1 else -1 for _, own in plain]
        assert kept.index[row].tolist() == alone


def test_of_a_smaller_crop_what_shows_any_of_the_image_is_left(tower, pixels):
    box = Box(1, 0, 3, 4)
    # Of 3 x 3 patches all show some of it.
    for budget, side, part in ((7, 2, Box(0, 0, 2, 2)), (3, 1, Box(0, 0, 1, 1))):
        plan = encoder.plan("downsample", replace(TINY, shown=box), budget)
        assert (plan.side, plan.box) == (side, part)
    high = encoder.plan("downsample", replace(TINY, shown=Box(0, 0, 1, 4)), 3)
    assert (high.side, high.box, high.padding) == (3, Box(0, 0, 1, 3), 6)
    kept = reduce_clip(tower, pixels, high).kept
    whole = reduce_clip(tower, pixels, Plan(3, (0, 0, 0))).kept
    torch.testing.assert_close(kept.tokens, whole.tokens[:, :3])
    assert kept.index.eq(-1).all()


def test_a_smaller_crop_is_never_larger_than_its_share():
    for top in range(24):
        for bottom in range(top + 1, 25):
            shape = replace(LLAVA, shown=Box(top, 0, bottom, 24))
            for budget in (1, 12, 13, 32, 64, 128):
                plan = encoder.plan("downsample", shape, budget)
                assert 1 <= plan.tokens <= budget
                assert plan.side < 24 or budget >= shape.tokens


def test_bfloat16(tower, pixels):
    own = CLIPVisionModel(clip_vision()).eval().to(torch.bfloat16)
    own.load_state_dict(tower.state_dict())
    for method in list_methods(ENCODER):
        kept = reduce_clip(own, pixels, encoder.plan(method, TINY, 4)).kept
        assert kept.tokens.dtype == torch.bfloat16 and kept.tokens.isfinite().all()


# What it costs


@pytest.mark.parametrize(("method", "budget"), [("tome", 3), ("tome", 7), ("downsample", 9)])
def test_multiply_adds_are_those_that_run(tower, pixels, method, budget):
    plan, sizes = encoder.plan(method, TINY, budget), Transformer.encoder(tower.config)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        reduce_clip(tower, pixels[:1], plan)
    patches = plan.side**2 * 3 * 14 * 14 * sizes.width
    unread = sizes.layer_macs(1 + budget)  # one block is not run here, and counted
    means = sum(plan.merged) * sizes.width
    assert counter.get_total_flops() // 2 == (
        plan.encoder_macs(sizes) - unread + plan.choice_macs(sizes) - means + patches
    )


def test_multiply_adds_with_padding_are_those_that_run(tower, pixels):
    sizes = Transformer.encoder(tower.config)
    plan = encoder.plan("tome", replace(TINY, shown=Box(1, 0, 3, 4)), 3)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        reduce_clip(tower, pixels[:1], plan)
    assert plan.padding == 8 and plan.tokens == 3
    unread, means = sizes.layer_macs(1 + 8 + 3), sum(plan.merged) * sizes.width
    assert counter.get_total_flops() // 2 == (
        plan.encoder_macs(sizes)
        - unread
        + plan.choice_macs(sizes)
        - means
        + 16 * 3 * 14 * 14 * sizes.width
    )


def test_multiply_adds_counted_by_hand():
    # A layer of width 8, FFN 16, 2 heads of 4: n tokens, m of them in the FFN.
    sizes = Transformer(3, 8, 16, 2, 2, 4, 2)

    def layer(n, m):
        return 4 * n * 8 * 8 + 2 * n * n * 8 + 2 * m * 8 * 16

    plan = Plan(4, (6, 4))
    assert plan.entering == (16, 10, 6)
    assert plan.encoder_macs(sizes) == layer(17, 11) + layer(11, 7) + layer(7, 7)
    assert plan.choice_macs(sizes) == (9 * 8 + 6 * 5) * 4 + 10 * 8
    assert Plan(2, (0, 0)).encoder_macs(sizes) == 3 * layer(5, 5)
    assert Plan(2, (0, 0)).choice_macs(sizes) == 0


# Models


def test_an_adapter_gives_rows_like_those_of_its_records(tiny_llava):
    adapter = families.load(tiny_llava)
    assert adapter.sizes.encoding == TINY
    inputs = adapter.preprocess(random_images(3))
    names = ["a", "b", "b"]
    kept, blank = adapter.reduce(inputs, adapter.plans("tome", 5, {"order": "raster"}), names)
    records = adapter.encode(inputs, names=names)
    assert blank.inputs == records.inputs and blank.sizes == records.sizes
    assert kept.count.tolist() == [5] * 3
    whole, _ = adapter.reduce(inputs, adapter.plans("tome", 16, {}))
    torch.testing.assert_close(whole.tokens, records.groups[0].features, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("method", list_methods(ENCODER))
@pytest.mark.parametrize("family", FAMILIES)
def test_other_families_say_which_ones_can(family, method, tiny_llava, tmp_path):
    FAMILIES[family](tmp_path / family, tiny_llava)
    adapter = families.load(tmp_path / family)
    if family in families_of(method):
        assert adapter.plans(method, 12, {}).budget == 12
        return
    assert adapter.sizes.encoding is None
    with pytest.raises(
        ValueError, match="vision encoder.*Families that it runs on: .*llava, llava_n"
    ):
        adapter.plans(method, 12, {})


def test_which_families_run_what():
    clip = ("llava", "llava_next", "mini_gemini", "video_llava")
    assert families_of("tome") == clip
    assert set(families_of("downsample")) == {
        *clip,
        "internvl",
        "qwen2_5_vl",
        "qwen2_vl",
        "qwen3_vl",
    }
    with pytest.raises(ValueError, match="Did you mean 'tome'"):
        families_of("tom")


@pytest.mark.parametrize("method", list_methods(ENCODER))
def test_the_library_call(tiny_llava, method):
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model = AutoModelForImageTextToText.from_pretrained(tiny_llava).eval()
    processor = AutoProcessor.from_pretrained(tiny_llava)
    texts = [
        "USER: <image> <image>\n what color ? ASSISTANT:",
        "USER: is there a star ? ASSISTANT:",
    ]
    inputs = processor(images=random_images(2), text=texts, padding=True, return_tensors="pt")
    short = prunesid.prune(model, processor, inputs, method, 5)
    left = {"tome": 5, "downsample": 4}[method]
    assert (short["input_ids"] == model.config.image_token_id).sum(1).tolist() == [2 * left, 0]
    with torch.no_grad():
        plain = model(**short).logits
    with prunesid.pruned(model, processor, method, 5), torch.no_grad():
        assert torch.equal(model(**inputs).logits, plain)
    assert prunesid.prune(model, processor, inputs, method, 16).keys() == inputs.keys()
    with pytest.raises(ValueError, match="preset of|parameter of"):
        prunesid.prune(model, processor, inputs, method, 5, preset="paper")
    if method == "tome":
        with pytest.raises(ValueError, match="leave at least 2 of 16"):
            prunesid.prune(model, processor, inputs, method, 1)
