"""The methods that PruneSID is compared with: equal to plain loops, exact, batch by batch the same."""

import numpy as np
import pytest
import reference_methods as reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import KINDS, features

from prunesid import VisionRecord, compress
from prunesid.methods.pool import pooled_grid
from prunesid.methods.visionzip import split_budget

EXACT = ("scope", "vispruner", "holov", "visionzip")
SELECTING = ("scope", "vispruner", "holov")


def record(kind="random", images=2, rows=5, columns=6, channels=8, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    tokens = rows * columns

    def normal(*shape):
        return torch.randn(shape, generator=generator).to(dtype)

    return VisionRecord(
        features(kind, images, tokens, channels, seed).to(dtype),
        cls=normal(images, channels),
        cls_attention=(2 * normal(images, 3, tokens)).softmax(-1),
        keys=normal(images, 2, tokens, 4),
        grid=(rows, columns),
        image_ids=tuple(f"{seed}-{i}" for i in range(images)),
    )


def attention_of(rec, image):
    step = 2.0**-40
    return (np.round(rec.cls_attention[image].numpy() / step) * step).sum(0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 2, 7, 16, 29])
def test_selecting_methods_equal_plain_loops(kind, count):
    rec = record(kind)
    for image in range(len(rec)):
        x, attention = rec.features[image].numpy(), attention_of(rec, image)
        wanted = {
            "scope": reference.scope(x, attention, count),
            "vispruner": reference.vispruner(x, attention, count),
            "holov": reference.holov(attention, count),
        }
        for method, index in wanted.items():
            kept = compress(rec, method, budget=count)
            assert kept.index[image].tolist() == index, method
            assert torch.equal(kept.tokens[image], rec.features[image, index])


@pytest.mark.parametrize("merge", ["target_plus_mean", "mean"])
@pytest.mark.parametrize(("count", "contextual"), [(7, 3), (16, 2), (29, 12)])
def test_visionzip_equals_plain_loops(merge, count, contextual):
    rec = record("clustered")
    kept = compress(rec, "visionzip", budget=count, contextual=contextual, merge=merge)
    for image in range(len(rec)):
        tokens, index = reference.visionzip(
            rec.features[image].numpy(), rec.cls[image].numpy(), attention_of(rec, image),
            rec.keys[image].numpy(), count - contextual, contextual, merge,
        )  # fmt: skip
        assert kept.index[image].tolist() == index
        assert np.allclose(kept.tokens[image].numpy(), tokens, rtol=0, atol=1e-12)


def test_visionzips_splits_are_the_authors():
    assert [split_budget(n, None) for n in (64, 128, 192)] == [(54, 10), (108, 20), (162, 30)]
    with pytest.raises(ValueError, match="contextual: 8 of 8 tokens leave no dominant"):
        compress(record(), "visionzip", budget=8, contextual=8)


def test_pool_equals_plain_means_and_says_what_it_hits():
    rec = record(rows=24, columns=24, images=1)
    for budget, side in ((64, 8), (128, 11), (192, 14)):
        kept = compress(rec, "pool", budget=budget)
        assert kept.count.tolist() == [side * side]
        wanted = reference.pool(rec.features[0].numpy(), (24, 24), (side, side))
        assert np.allclose(kept.tokens[0].numpy(), wanted, rtol=0, atol=1e-12)
    assert pooled_grid(12, 24, 32) == (4, 8)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    method=st.sampled_from(EXACT),
    kind=st.sampled_from(KINDS),
    rows=st.integers(1, 7),
    columns=st.integers(1, 7),
    budget=st.lists(st.integers(1, 50), min_size=3, max_size=3),
)
def test_budgets_are_exact_and_a_batch_is_its_images(method, kind, rows, columns, budget):
    rec = record(kind, images=3, rows=rows, columns=columns, dtype=torch.float32)
    kept = compress(rec, method, budget=torch.tensor(budget))
    for image, wanted in enumerate(budget):
        count = min(wanted, rows * columns)
        assert kept.count[image] == count
        index = kept.index[image, :count]
        patches = index[index >= 0]
        assert patches.unique().numel() == patches.numel()
        if method in SELECTING:
            assert len(patches) == count
        if wanted >= rows * columns:
            assert torch.equal(kept.tokens[image, :count], rec.features[image])
        assert not kept.tokens[image, count:].any()
        alone = compress(rec.rows([image]), method, budget=wanted)
        assert torch.equal(alone.index[0], index)
        assert torch.equal(alone.tokens[0], kept.tokens[image, :count])


def test_scope_is_nested_and_alpha_zero_ignores_attention():
    rec = record("clustered", images=1)
    small, large = (set(compress(rec, "scope", budget=n).index[0].tolist()) for n in (6, 14))
    assert small < large
    other = VisionRecord(rec.features, cls_attention=rec.cls_attention.flip(2))
    found = [compress(r, "scope", budget=9, alpha=0.0).index.tolist() for r in (rec, other)]
    assert found[0] == found[1]


def test_vispruner_with_only_important_tokens_is_cls_topk():
    rec = record()
    kept = compress(rec, "vispruner", budget=9, important=1.0)
    assert torch.equal(kept.index, compress(rec, "cls_topk", budget=9).index)
    with pytest.raises(ValueError, match=r"important is a share of the budget in \[0, 1\], not 2"):
        compress(rec, "vispruner", budget=9, important=2)


def test_holov_fills_what_a_run_cannot_hold():
    attention = torch.full((1, 1, 32), 1e-6)
    attention[0, 0, :2] = 0.5
    rec = VisionRecord(torch.randn(1, 32, 4), cls_attention=attention)
    kept = compress(rec, "holov", budget=9)
    assert kept.count.tolist() == [9]
    assert {0, 1} < set(kept.index[0].tolist())
    assert compress(rec, "holov", budget=9, order="raster").index[0].tolist() == sorted(
        kept.index[0].tolist()
    )


@pytest.mark.parametrize("method", EXACT)
def test_what_is_missing_is_named(method):
    with pytest.raises(ValueError, match=f"{method} needs cls_attention"):
        compress(VisionRecord(torch.randn(1, 9, 4)), method, budget=3)
