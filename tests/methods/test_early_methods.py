"""Methods on features other than PruneSID: exact, equal in any batch, sound on degenerate input.

The golden vectors show that they agree with their authors' code (`test_golden.py`).
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from builders import reference_methods as reference
from builders.synthetic import KINDS, features
from hypothesis import given, settings
from hypothesis import strategies as st

from prunesid import VisionRecord, compress
from prunesid.core.numerics import PROBABILITY_GRID
from prunesid.core.record import CLIP, EMBEDDINGS
from prunesid.methods.features.hired import crop_budgets, kept_count
from prunesid.methods.features.pool import pooled_grid
from prunesid.methods.features.visionzip import split_budget
from prunesid.methods.registry import requirements

EXACT = (
    ("scope", {}), ("vispruner", {}), ("holov", {}), ("visionzip", {}),
    ("divprune", {}), ("divprune", {"order": "selection"}), ("dpp", {}), ("cdpruner", {}),
    ("hired", {}), ("prumerge", {}), ("prumerge", {"variant": "plus"}),
)  # fmt: skip
MERGING = ("visionzip", "prumerge")
# Methods whose count is not the budget.
INEXACT = (
    ("prumerge", {"variant": "plus", "grid": "all"}),
    ("prumerge", {"variant": "adaptive"}),
    ("prumerge", {"variant": "adaptive_plus"}),
)
DEGENERATE = tuple(kind for kind in KINDS if kind not in ("random", "clustered"))


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
    step = PROBABILITY_GRID
    return (np.round(rec.cls_attention[image].double().numpy() / step) * step).sum(0)


@pytest.mark.parametrize("kind", DEGENERATE)
@pytest.mark.parametrize("count", [1, 2, 7, 16, 29])
def test_selecting_methods_equal_plain_loops(kind, count):
    rec = record(kind)
    for image in range(len(rec)):
        x, attention = rec.features[image].numpy(), attention_of(rec, image)
        wanted = {
            "scope": reference.scope(x, attention, count),
            "vispruner": reference.vispruner(x, attention, count),
            "divprune": sorted(reference.divprune(rec.projected[image].numpy(), count)),
            "dpp": reference.cdpruner(rec.projected[image].numpy(), count),
        }
        for method, index in wanted.items():
            kept = compress(rec, method, budget=count)
            assert kept.index[image].tolist() == index, method
            assert torch.equal(kept.tokens[image], rec.features[image, index])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 2, 16, 30])
def test_prumerges_grid_on_the_rest_is_even_and_repeats_nothing(kind, count):
    rec = record(kind, rows=6, columns=6)
    kept = compress(rec, "prumerge", budget=count, variant="plus")
    # A token depends on its patch alone, whatever else is selected; here all but one are.
    every = compress(rec, "prumerge", budget=35)
    for image in range(len(rec)):
        order = np.argsort(-rec.last_attention[image].numpy(), kind="stable")
        spread = (count - 1) // 2
        top = order[: count - 1 - spread].tolist()
        rest = [t for t in range(36) if t not in top]
        grid = [rest[int((i + 0.5) * len(rest) / spread)] for i in range(spread)]
        assert kept.info["selected"][image].nonzero()[:, 0].tolist() == sorted(top + grid)
        place = {int(patch): number for number, patch in enumerate(order)}
        both = [(i, place[t]) for i, t in enumerate(top + grid) if place[t] < 34]
        for own, other in both:
            torch.testing.assert_close(kept.tokens[image, own], every.tokens[image, other])
        left = [t for t in range(36) if t not in top + grid]
        extra = (rec.last_attention[image, left][:, None] * rec.features[image, left]).sum(0)
        torch.testing.assert_close(kept.tokens[image, count - 1], extra)


@pytest.mark.parametrize("kind", KINDS)
def test_visionzips_contextual_tokens_are_made_of_the_patches_that_it_names(kind):
    rec = record(kind, rows=6, columns=6)
    kept = compress(rec, "visionzip", budget=16, contextual=5)
    for image in range(len(rec)):
        into, targets = kept.info["merged_into"][image], kept.info["selected"][image]
        named = {p for p, number in enumerate(into.tolist()) if number < 0}
        assert named == set(kept.index[image].tolist()) - {-1}
        for number in range(5):
            (target,) = (targets & (into == number)).nonzero()[:, 0].tolist()
            members = rec.features[image, (into == number) & ~targets]
            mean = members.mean(dim=0) if len(members) else torch.zeros(rec.features.shape[2])
            expected = rec.features[image, target] + mean
            torch.testing.assert_close(kept.tokens[image, 11 + number], expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("params", [{}, {"variant": "plus"}, {"variant": "plus", "grid": "all"}])
def test_prumerges_tokens_are_made_of_the_patches_that_it_names(kind, params):
    rec = record(kind, rows=8, columns=8)
    kept = compress(rec, "prumerge", budget=12, **params)
    for image in range(len(rec)):
        named = [[p for p in own if p >= 0] for own in kept.info["members"][image].tolist()]
        count = int(kept.count[image])
        assert len(named) == count - 1 and {len(own) for own in named} == {33}
        centers = {own[0] for own in named}
        assert centers == set(kept.info["selected"][image].nonzero()[:, 0].tolist())
        for token, (center, *near) in zip(kept.tokens[image], named, strict=False):
            weights = rec.last_attention[image, near, None]
            expected = rec.features[image, center] + (weights * rec.features[image, near]).sum(0)
            torch.testing.assert_close(token, expected)


def test_pools_tokens_are_means_of_the_patches_that_it_names():
    rec = record(rows=5, columns=7)
    kept = compress(rec, "pool", budget=torch.tensor([6, 12, 35])[: len(rec)])
    for image in range(len(rec)):
        named = kept.info["members"][image].tolist()
        for own, token in zip(named, kept.tokens[image, : kept.count[image]], strict=False):
            patches = [p for p in own if p >= 0]
            if patches:
                torch.testing.assert_close(token, rec.features[image, patches].mean(dim=0))
        real = sum(own[0] >= 0 for own in named)
        assert real == (0 if kept.count[image] == 35 else kept.count[image])


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


def test_holov_fills_what_a_run_cannot_hold_or_sends_zeros():
    attention = torch.full((1, 1, 32), 1e-6)
    attention[0, 0, :2] = torch.tensor([0.4, 0.5])
    rec = VisionRecord(torch.randn(1, 32, 4), cls_attention=attention)
    kept = compress(rec, "holov", budget=9)
    assert kept.count.tolist() == [9]
    # The first run is sent whole, in raster order.
    assert kept.index[0, :2].tolist() == [0, 1]
    assert kept.index[0].unique().numel() == 9
    assert compress(rec, "holov", budget=9, order="raster").index[0].tolist() == sorted(
        kept.index[0].tolist()
    )
    zeros = compress(rec, "holov", budget=9, surplus="zeros")
    assert zeros.count.tolist() == [9]
    assert zeros.index[0].tolist() == [0, 1] + [-1] * 7
    assert not zeros.tokens[0, 2:].any()


def test_holovs_remainder_goes_one_by_one_to_the_largest_runs():
    # Shares of 2.5, 2.5, 2 and 1 of 8: 2, 2, 2 and 1, and one more for the first of the largest.
    attention = torch.tensor([5.0, 5.0, 4.0, 2.0]).repeat_interleave(4)[None, None]
    rec = VisionRecord(torch.randn(1, 16, 4), cls_attention=attention)
    kept = compress(rec, "holov", budget=8, runs=4)
    assert torch.bincount(kept.index[0] // 4).tolist() == [3, 2, 2, 1]
    # 15 tokens in 4 runs: the first three hold one more.
    rec = VisionRecord(torch.randn(1, 15, 4), cls_attention=torch.ones(1, 1, 15))
    assert compress(rec, "holov", budget=4, runs=4).index[0].tolist() == [0, 4, 8, 12]


def adaptive_count(attention, variant):
    low, high = np.percentile(attention, [25, 75])
    number = max(1, sum(a > high + 1.5 * (high - low) for a in attention))
    tokens = len(attention)
    chosen = set(np.argsort(-attention, kind="stable")[:number].tolist())
    if variant == "adaptive_plus":
        chosen |= set(range(0, tokens - 1, max(1, tokens // number // 3)))
    return len(chosen) + (len(chosen) < tokens)


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
        elif params["variant"] == "plus":
            count = 2 * (wanted // 2) + 1
        else:
            count = adaptive_count(rec.last_attention[image].double().numpy(), params["variant"])
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
        # By CLIP tokens least like the question matter most, by embeddings those most like it.
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


def test_hired_keeps_the_budget_and_upstream_what_floating_point_leaves_of_it():
    rec = record(rows=24, columns=24, images=1)
    for rounding in ("exact", "upstream"):
        assert [kept_count(n, 576, rounding) for n in range(1, 577)] == list(range(1, 577))
        kept = compress(rec, "hired", budget=64, rounding=rounding)
        assert torch.equal(kept.index, compress(rec, "cls_topk", budget=64).index)
    lost = [n for n in range(1, 2881) if kept_count(n, 2880, "upstream") != n]
    assert lost[:4] == [13, 26, 49, 52]
    assert all(kept_count(n, 2880, "upstream") == n - 1 for n in lost)
    assert all(kept_count(n, 2880) == n for n in lost)


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
        found = crop_budgets(attention, total, crops, alpha=alpha, regions=regions, grid=grid)
        for image in range(2):
            shape = grid if regions == "quadrants" else None
            wanted = reference.crop_budgets(attention[image].numpy(), total, crops, alpha, shape)
            assert found[image].tolist() == wanted
        assert (found.sum(dim=1) <= total).all() and (found <= tokens).all()


def test_crop_budgets_of_llava_next():
    attention = torch.zeros(1, 576)
    attention[0].view(24, 24)[:12, :12] = torch.rand(12, 12) + 1  # the upper left quadrant
    attention[0].view(24, 24)[12:, 12:] = torch.rand(12, 12)  # the lower right one
    runs = crop_budgets(attention, 320, (2, 2))
    assert runs.tolist() == [[160, 40, 40, 40, 40]]
    quadrants = crop_budgets(attention, 320, (2, 2), regions="quadrants", grid=(24, 24))
    assert quadrants.tolist() == [[160, 80, 0, 0, 80]]
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
        "Methods that need no more than it has: grid, pool, prunesid, random."
    )


@pytest.mark.parametrize(
    ("method", "field"),
    [
        ("divprune", "projected"),
        ("dpp", "projected"),
        ("cdpruner", "relevance"),
        ("prumerge", "last_keys"),
        ("prumerge", "last_attention"),
    ],
)
def test_nan_in_what_is_read_raises(method, field):
    rec = record()
    getattr(rec, field)[1, 3] = torch.nan
    with pytest.raises(ValueError, match=f"{field} holds NaN or infinite"):
        compress(rec, method, budget=4)
    compress(rec, "cls_topk", budget=4)
