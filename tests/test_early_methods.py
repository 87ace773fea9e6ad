"""The methods that PruneSID is compared with: equal to plain loops, exact, batch by batch the same."""

from dataclasses import replace

import numpy as np
import pytest
import reference_methods as reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import KINDS, features

from prunesid import VisionRecord, compress
from prunesid.methods import requirements
from prunesid.methods.hired import crop_budgets, kept_count
from prunesid.methods.pool import pooled_grid
from prunesid.methods.visionzip import split_budget
from prunesid.record import CLIP, EMBEDDINGS

EXACT = (
    ("scope", {}), ("vispruner", {}), ("holov", {}), ("visionzip", {}),
    ("divprune", {}), ("divprune", {"order": "selection"}), ("dpp", {}), ("cdpruner", {}),
    ("hired", {"rounding": "exact"}), ("prumerge", {}), ("prumerge", {"variant": "plus"}),
)  # fmt: skip
MERGING = ("visionzip", "prumerge")
# What the count is where it is not the budget.
INEXACT = (("hired", {}), ("prumerge", {"variant": "adaptive"}),
           ("prumerge", {"variant": "adaptive_plus"}))  # fmt: skip


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
        projected=features(kind, images, tokens, 12, seed + 1).to(dtype),
        relevance=normal(images, tokens),
        last_attention=(2 * normal(images, tokens + 1)).softmax(-1)[:, 1:],
        last_keys=features(kind, images, tokens, channels, seed + 2).to(dtype),
        grid=(rows, columns),
        image_ids=tuple(f"{seed}-{i}" for i in range(images)),
    )


def attention_of(rec, image):
    step = 2.0**-40
    return (np.round(rec.cls_attention[image].double().numpy() / step) * step).sum(0)


def prumerge_of(rec, image, count, variant):
    step = 2.0**-40
    attention = np.round(rec.last_attention[image].double().numpy() / step) * step
    x, keys = rec.features[image].double().numpy(), rec.last_keys[image].double().numpy()
    return reference.prumerge(x, attention, keys, count, variant)


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
            "divprune": sorted(reference.divprune(rec.projected[image].numpy(), count)),
            "dpp": reference.cdpruner(rec.projected[image].numpy(), count),
            "hired": reference.hired(attention, count),
        }
        for method, index in wanted.items():
            kept = compress(rec, method, budget=count)
            assert kept.index[image].tolist() == index, method
            assert torch.equal(kept.tokens[image], rec.features[image, index])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("variant", ["fixed", "plus", "adaptive", "adaptive_plus"])
@pytest.mark.parametrize(("count", "size"), [(1, 6), (2, 6), (16, 6), (29, 6), (30, 9)])
def test_prumerge_equals_plain_loops(kind, variant, count, size):
    rec = record(kind, rows=size, columns=size)
    kept = compress(rec, "prumerge", budget=count, variant=variant)
    for image in range(len(rec)):
        tokens, selected = prumerge_of(rec, image, count, variant)
        assert kept.count[image] == len(tokens)
        assert kept.info["selected"][image].nonzero()[:, 0].tolist() == sorted(selected)
        assert np.allclose(kept.split()[image].numpy(), tokens, rtol=1e-12, atol=1e-10)
        assert (kept.index == -1).all()


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
    case=st.sampled_from(EXACT),
    kind=st.sampled_from(KINDS),
    rows=st.integers(1, 7),
    columns=st.integers(1, 7),
    budget=st.lists(st.integers(1, 50), min_size=3, max_size=3),
)
def test_budgets_are_exact_and_a_batch_is_its_images(case, kind, rows, columns, budget):
    method, params = case
    rec = record(kind, images=3, rows=rows, columns=columns, dtype=torch.float32)
    kept = compress(rec, method, budget=torch.tensor(budget), **params)
    again = compress(rec, method, budget=torch.tensor(budget), **params)
    assert torch.equal(again.tokens, kept.tokens) and torch.equal(again.index, kept.index)
    for image, wanted in enumerate(budget):
        count = min(wanted, rows * columns)
        assert kept.count[image] == count
        index = kept.index[image, :count]
        patches = index[index >= 0]
        assert patches.unique().numel() == patches.numel()
        if method not in MERGING:
            assert len(patches) == count
        if wanted >= rows * columns:
            assert torch.equal(kept.tokens[image, :count], rec.features[image])
        assert not kept.tokens[image, count:].any()
        alone = compress(rec.rows([image]), method, budget=wanted, **params)
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


@settings(derandomize=True, deadline=None, max_examples=40)
@given(
    case=st.sampled_from(INEXACT),
    kind=st.sampled_from(KINDS),
    rows=st.integers(1, 8),
    columns=st.integers(1, 8),
    budget=st.lists(st.integers(1, 60), min_size=3, max_size=3),
)
def test_counts_are_those_stated_and_a_batch_is_its_images(case, kind, rows, columns, budget):
    (method, params), tokens = case, rows * columns
    rec = record(kind, images=3, rows=rows, columns=columns, dtype=torch.float32)
    kept = compress(rec, method, budget=torch.tensor(budget), **params)
    for image, wanted in enumerate(budget):
        if wanted >= tokens:
            count = tokens
            assert torch.equal(kept.tokens[image, :count], rec.features[image])
            assert kept.index[image, :count].tolist() == list(range(tokens))
        elif method == "hired":
            count = len(reference.hired(attention_of(rec, image), wanted))
        else:
            count = len(prumerge_of(rec, image, wanted, params["variant"])[0])
        assert kept.count[image] == count
        assert not kept.tokens[image, count:].any()
        alone = compress(rec.rows([image]), method, budget=wanted, **params)
        assert torch.equal(alone.index[0], kept.index[image, :count])
        assert torch.equal(alone.tokens[0], kept.tokens[image, :count])


def test_divprune_is_nested_and_gives_the_order_of_selection():
    rec = record("clustered", images=1)
    order = reference.divprune(rec.projected[0].numpy(), 14)
    for count in (6, 14):
        kept = compress(rec, "divprune", budget=count, order="selection")
        assert kept.index[0].tolist() == order[:count]
        assert torch.equal(kept.tokens[0], rec.features[0, order[:count]])
    assert order != sorted(order)


def test_divprune_reads_the_projected_tokens_only():
    rec = record(images=1)
    changed = record(images=1, seed=5)
    mixed = VisionRecord(changed.features, projected=rec.projected)
    found = [compress(r, "divprune", budget=9).index.tolist() for r in (rec, mixed, changed)]
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 7, 16, 29])
def test_cdpruner_equals_plain_loops(kind, count):
    rec = record(kind)
    near = replace(rec, relevance_by=EMBEDDINGS)
    for image in range(len(rec)):
        projected, relevance = rec.projected[image].numpy(), rec.relevance[image].numpy()
        # By CLIP what is least like the question matters most, by embeddings what is most like it.
        for own, sign in ((rec, 1), (near, -1)):
            kept = compress(own, "cdpruner", budget=count)
            assert kept.index[image].tolist() == reference.cdpruner(
                projected, count, sign * relevance
            )


def test_cdpruner_refuses_relevance_by_another_encoder_than_it_is_told():
    rec = record()
    for by in (CLIP, EMBEDDINGS):
        own = replace(rec, relevance_by=by)
        named = compress(own, "cdpruner", budget=5, relevance=by)
        assert torch.equal(named.index, compress(own, "cdpruner", budget=5).index)
    with pytest.raises(ValueError, match=r"relevance='embeddings', but the record's is by 'clip'"):
        compress(rec, "cdpruner", budget=5, relevance="embeddings")


def test_cdpruner_beyond_the_rank_takes_the_most_relevant_of_the_others():
    rec = record("flat")  # rank 1
    weight = -rec.relevance
    best = weight.argsort(dim=1, descending=True)[:, :5].sort(dim=1).values
    assert torch.equal(compress(rec, "cdpruner", budget=5).index, best)
    assert compress(rec, "dpp", budget=5).index.tolist() == [[0, 1, 2, 3, 4]] * 2
    level = VisionRecord(rec.features, projected=rec.projected, relevance=weight * 0 + 0.3)
    assert compress(level, "cdpruner", budget=3).index.tolist() == [[0, 1, 2]] * 2


def test_hired_loses_a_token_to_the_rounding_of_the_rate():
    rec = record(rows=24, columns=24, images=1)
    for budget, count in ((64, 63), (128, 127), (192, 191)):
        assert compress(rec, "hired", budget=budget).count.tolist() == [count]
        kept = compress(rec, "hired", budget=budget, rounding="exact")
        assert torch.equal(kept.index, compress(rec, "cls_topk", budget=budget).index)
    assert [kept_count(n, 2880) for n in (160, 320, 640, 2880)] == [160, 319, 639, 2880]
    assert kept_count(1, 49) == 1


@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    grid=st.tuples(st.integers(1, 8), st.integers(1, 8)),
    crops=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    share=st.floats(0.01, 1),
    alpha=st.sampled_from([0.0, 0.25, 0.5, 0.9, 1.0]),
    seed=st.integers(0, 99),
)
def test_crop_budgets_equal_plain_loops(grid, crops, share, alpha, seed):
    tokens = grid[0] * grid[1]
    attention = torch.rand(2, tokens, generator=torch.Generator().manual_seed(seed)).double()
    whole = tokens * (1 + crops[0] * crops[1])
    total = max(1, int(share * whole))
    for regions in ("runs", "quadrants"):
        found = crop_budgets(attention, total, crops, alpha=alpha, regions=regions, grid=grid,
                             rounding="exact")  # fmt: skip
        for image in range(2):
            wanted = reference.crop_budgets(
                attention[image].numpy(), total, crops, alpha, grid if regions == "quadrants" else None
            )  # fmt: skip
            assert found[image].tolist() == wanted
        assert (found.sum(dim=1) <= total).all() and (found <= tokens).all()


def test_crop_budgets_of_llava_next():
    attention = torch.zeros(1, 576)
    attention[0].view(24, 24)[:12, :12] = torch.rand(12, 12) + 1  # the upper left quadrant
    attention[0].view(24, 24)[12:, 12:] = torch.rand(12, 12)  # the lower right one
    runs = crop_budgets(attention, 320, (2, 2))
    assert runs.tolist() == [[159, 40, 40, 40, 40]]  # of 319
    quadrants = crop_budgets(attention, 320, (2, 2), regions="quadrants", grid=(24, 24))
    assert quadrants.tolist() == [[159, 80, 0, 0, 80]]
    assert int(crop_budgets(attention, 2880, (2, 2)).max()) == 576
    with pytest.raises(ValueError, match="Did you mean 'quadrants'"):
        crop_budgets(attention, 320, (2, 2), regions="quadrant")
    with pytest.raises(ValueError, match="needs the grid of the 576 patches, not None"):
        crop_budgets(attention, 320, (2, 2), regions="quadrants")
    with pytest.raises(ValueError, match=r"alpha is a share in \[0, 1\], not 2"):
        crop_budgets(attention, 320, (2, 2), alpha=2)
    with pytest.raises(ValueError, match="budget must be at least 1 token, not 0"):
        crop_budgets(attention, 0, (2, 2))


def test_prumerges_count_follows_the_outliers():
    attention = torch.full((2, 40), 0.01, dtype=torch.float64)
    attention[0, [3, 7, 30]] = 0.1
    rec = VisionRecord(
        torch.randn(2, 40, 4), last_attention=attention, last_keys=torch.randn(2, 40, 6)
    )
    kept = compress(rec, "prumerge", budget=9, variant="adaptive")
    assert kept.count.tolist() == [4, 2]
    assert kept.info["selected"][0].nonzero()[:, 0].tolist() == [3, 7, 30]
    more = compress(rec, "prumerge", budget=9, variant="adaptive_plus")  # s = 13 // 3 and 40 // 3
    assert more.count.tolist() == [3 + 10 + 1, 1 + 3 + 1 - 1]
    other = compress(rec, "prumerge", budget=20, variant="adaptive_plus")
    assert torch.equal(more.tokens, other.tokens)


@pytest.mark.parametrize("variant", ["fixed", "plus"])
def test_prumerge_of_a_batch_has_the_bits_of_its_images(variant):
    rec = record("clustered", images=5, rows=10, columns=11, channels=67)
    kept = compress(rec, "prumerge", budget=40, variant=variant)
    for image in range(5):
        alone = compress(rec.rows([image]), "prumerge", budget=40, variant=variant)
        assert torch.equal(alone.tokens[0], kept.tokens[image])


@pytest.mark.parametrize(("method", "params"), [*EXACT, *INEXACT])
def test_what_is_missing_is_named(method, params):
    bare = VisionRecord(torch.randn(1, 9, 4))
    lacking = ", ".join(requirements(method, **params).of(bare))
    with pytest.raises(
        ValueError, match=f"{method} needs {lacking}, which this record lacks"
    ) as raised:
        compress(bare, method, budget=3, **params)
    assert str(raised.value).endswith(
        "Methods that it is enough for: grid, pool, prunesid, random."
    )


@pytest.mark.parametrize(
    ("method", "field"), [("divprune", "projected"), ("dpp", "projected"), ("cdpruner", "relevance"),
                          ("prumerge", "last_keys"), ("prumerge", "last_attention")],
)  # fmt: skip
def test_nan_in_what_is_read_raises(method, field):
    rec = record()
    getattr(rec, field)[1, 3] = torch.nan
    with pytest.raises(ValueError, match=f"{field} holds NaN or infinite"):
        compress(rec, method, budget=4)
    compress(rec, "cls_topk", budget=4)
