import pytest
import torch
from builders.reference import prunesid as reference
from builders.synthetic import KINDS, features, record
from hypothesis import given, settings
from hypothesis import strategies as st

from prunesid import VisionRecord, compress
from prunesid.core.seeding import Draws
from prunesid.methods.features.prunesid.method import PRESETS
from prunesid.methods.registry import requirements, resolve

plain = settings(derandomize=True, deadline=None, max_examples=100)
shapes = {
    "kind": st.sampled_from(KINDS),
    "images": st.integers(1, 3),
    "tokens": st.integers(1, 40),
    "channels": st.integers(1, 40),
    "seed": st.integers(0, 10**6),
}
presets = st.sampled_from(sorted(PRESETS))
switches = st.fixed_dictionaries(
    {
        "grouping": st.sampled_from(["psca", "random"]),
        "score": st.sampled_from(["abs_v", "cls_attention"]),
        "center": st.sampled_from(["tokens", "channels"]),
        "solver": st.sampled_from(["exact", "randomized"]),
        "threshold": st.sampled_from(["scaled", "off", "matched"]),
        "cap": st.sampled_from(["none", "release"]),
        "rounding": st.sampled_from(["largest_remainder", "cumulative"]),
        "refill": st.sampled_from(["score", "caps"]),
        "cls_token": st.booleans(),
        "order": st.sampled_from(["raster", "groups"]),
        "layer": st.sampled_from([None, 1]),
        "num_groups": st.one_of(st.none(), st.integers(1, 50)),
    }
)


def check(kept, rec, budget, cls_token):
    tokens = rec.num_tokens
    for image, n in enumerate(budget):
        index = kept.index[image].tolist()
        count = int(kept.count[image])
        assert count == min(n, tokens)
        assert index[count:] == [-1] * (len(index) - count)
        assert not kept.tokens[image, count:].any()
        patches = index[:count]
        if n >= tokens:
            assert patches == list(range(tokens))
        elif cls_token:
            assert patches[0] == -1
            assert torch.equal(kept.tokens[image, 0], rec.cls[image])
            patches = patches[1:]
        assert len(set(patches)) == len(patches)
        assert all(0 <= i < tokens for i in patches)
        start = count - len(patches)
        assert torch.equal(kept.tokens[image, start:count], rec.features[image, patches])


@plain
@given(
    preset=presets, budget=st.integers(1, 45), k=st.one_of(st.none(), st.integers(1, 45)), **shapes
)
def test_agrees_with_the_plain_reference(preset, budget, k, kind, images, tokens, channels, seed):
    rec = record(kind, images, tokens, channels, seed)
    kept = compress(rec, "prunesid", budget=budget, preset=preset, num_groups=k, seed=3)
    for i in range(images):
        index, facts = reference(
            rec.features[i].double().numpy(),
            budget,
            preset,
            k,
            attention=rec.cls_attention[i].double().sum(0).numpy(),
            generator=Draws(rec, (3,) * images).generator(i, "solver"),
        )
        assert kept.index[i].tolist() == index
        for name, value in facts.items():
            assert kept.info[name][i].item() == pytest.approx(value, abs=1e-9)


@pytest.mark.parametrize("preset", sorted(PRESETS))
@pytest.mark.parametrize("kind", ["random", "clustered", "duplicated"])
def test_agrees_with_the_plain_reference_at_a_larger_size(preset, kind):
    rec = record(kind, 1, 144, 64, 5)
    index, _ = reference(
        rec.features[0].double().numpy(),
        36,
        preset,
        attention=rec.cls_attention[0].double().sum(0).numpy(),
        generator=Draws(rec, (0,)).generator(0, "solver"),
    )
    assert compress(rec, "prunesid", budget=36, preset=preset).index[0].tolist() == index


@plain
@given(preset=presets, budget=st.lists(st.integers(1, 45), min_size=3, max_size=3), **shapes)
def test_presets_keep_exactly_the_budget(preset, budget, kind, images, tokens, channels, seed):
    rec = record(kind, images, tokens, channels, seed)
    budget = budget[:images]
    kept = compress(rec, "prunesid", budget=torch.tensor(budget), preset=preset)
    if preset == "release_qwen":
        budget = [max(16, round(tokens * each / 576)) for each in budget]
    check(kept, rec, budget, cls_token=preset == "release")


@plain
@given(switch=switches, budget=st.lists(st.integers(1, 45), min_size=3, max_size=3), **shapes)
def test_any_switches_keep_exactly_the_budget_and_ignore_the_batch(
    switch, budget, kind, images, tokens, channels, seed
):
    if switch["threshold"] == "matched":
        switch = {**switch, "cap": None, "rounding": None, "refill": None}
    rec = record(kind, images, tokens, channels, seed)
    budget = budget[:images]
    kept = compress(rec, "prunesid", budget=torch.tensor(budget), **switch)
    check(kept, rec, budget, switch["cls_token"])
    for i, n in enumerate(budget):
        alone = compress(rec.rows([i]), "prunesid", budget=n, **switch)
        count = int(alone.count)
        assert torch.equal(kept.index[i, :count], alone.index[0])
        assert torch.equal(kept.tokens[i, :count], alone.tokens[0])
        for name, value in alone.info.items():
            assert torch.equal(kept.info[name][i : i + 1], value), name


@pytest.mark.parametrize("preset", sorted(PRESETS))
@pytest.mark.parametrize("grouping", ["psca", "kmeans", "random"])
def test_batch_order_and_threads_change_nothing(preset, grouping):
    rec = record("clustered", 4, 100, 48, 7)
    kept = compress(rec, "prunesid", budget=20, preset=preset, grouping=grouping)
    order = [2, 0, 3, 1]
    threads = torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            other = compress(
                rec.rows(order), "prunesid", budget=20, preset=preset, grouping=grouping
            )
            assert torch.equal(other.index, kept.index[order])
            assert torch.equal(other.tokens, kept.tokens[order])
            for name in kept.info:
                assert torch.equal(other.info[name], kept.info[name][order]), name
    finally:
        torch.set_num_threads(threads)


def test_seed_matters_where_it_says_so():
    rec = record(images=1, tokens=60, channels=32)
    for params in ({"grouping": "random"}, {"grouping": "kmeans"}, {"preset": "release"}):
        one, same, other = (
            compress(rec, "prunesid", budget=12, seed=s, **params).index for s in (1, 1, 2)
        )
        assert torch.equal(one, same)
        assert not torch.equal(one, other)
    one, other = (compress(rec, "prunesid", budget=12, seed=s).index for s in (1, 2))
    assert torch.equal(one, other)


def test_matched_is_never_refilled_and_has_the_smallest_threshold():
    rec = record("clustered", 2, 60, 32)
    kept = compress(rec, "prunesid", budget=16, preset="matched")
    assert (kept.info["survivors"] >= 16).all()
    assert (kept.info["refilled"] == 0).all()
    # As a scaled threshold just below: lambda = (tau - one step) / rho.
    for i in range(2):
        below = float(kept.info["tau"][i]) - 2.0**-30
        lam = below / float(kept.info["rho"][i])
        less = compress(rec.rows([i]), "prunesid", budget=16, lam=lam)
        assert int(less.info["survivors"]) < 16


def test_threshold_of_one_suppresses_nothing():
    rec = record("clustered", 1, 64, 32)
    off = compress(rec, "prunesid", budget=16, threshold="off")
    high = compress(rec, "prunesid", budget=16, lam=1e9)
    assert torch.equal(off.index, high.index)
    assert high.info["suppressed"].item() == off.info["suppressed"].item() == 0
    low = compress(rec, "prunesid", budget=16, lam=0.0)
    assert low.info["survivors"].item() < 64


def test_too_few_survivors_are_refilled_by_score():
    rec = VisionRecord(features("duplicated", 1, 30, 8, 1))
    kept = compress(rec, "prunesid", budget=12, lam=0.5)
    survivors, refilled = kept.info["survivors"].item(), kept.info["refilled"].item()
    assert survivors < 12
    assert survivors + refilled == 12


def test_layer_feeds_groups_and_scores_only():
    rec = record(images=1, tokens=40, channels=24)
    kept = compress(rec, "prunesid", budget=10, layer=1)
    usual = compress(rec, "prunesid", budget=10)
    assert torch.equal(kept.info["rho"], usual.info["rho"])
    assert torch.equal(kept.tokens[0], rec.features[0, kept.index[0]])
    assert not torch.equal(kept.index, usual.index)
    swapped = VisionRecord(rec.hidden[1])
    assert torch.equal(
        compress(swapped, "prunesid", budget=10, threshold="off").index,
        compress(rec, "prunesid", budget=10, threshold="off", layer=1).index,
    )
    with pytest.raises(ValueError, match=r"hidden\[7\].*Layers it holds: 1"):
        compress(rec, "prunesid", budget=10, layer=7)


def test_number_of_groups_follows_the_budget_and_is_clipped():
    rec = record(images=3, tokens=40, channels=6)
    kept = compress(rec, "prunesid", budget=torch.tensor([2, 20, 32]))
    assert kept.info["requested_groups"].tolist() == [1, 5, 8]
    assert kept.info["num_groups"].tolist() == [1, 5, 6]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtype_of_the_input_is_kept(dtype):
    rec = record().to(dtype=dtype)
    for preset in PRESETS:
        kept = compress(rec, "prunesid", budget=8, preset=preset)
        assert kept.tokens.dtype == dtype
        wide = compress(rec.to(dtype=torch.float64), "prunesid", budget=8, preset=preset)
        assert torch.equal(kept.index, wide.index)


def test_tensors_of_inference_mode_are_welcome():
    with torch.inference_mode():
        rec = record().to(dtype=torch.float64)
    for preset in PRESETS:
        wanted = 16 if preset == "release_qwen" else 8
        assert compress(rec, "prunesid", budget=8, preset=preset).count.tolist() == [wanted] * 2


def test_groups_order_is_group_by_group():
    rec = record(images=1, tokens=40, channels=24)
    by_group = compress(rec, "prunesid", budget=16, order="groups")
    raster = compress(rec, "prunesid", budget=16)
    assert raster.index[0].tolist() == sorted(by_group.index[0].tolist())
    assert by_group.index[0].tolist() != raster.index[0].tolist()


def test_presets_and_requirements():
    paper = resolve("prunesid")
    assert (paper["preset"], paper["score"], paper["num_groups"]) == ("paper", "abs_v", None)
    assert resolve("prunesid", **paper) == paper
    for preset in PRESETS:
        full = resolve("prunesid", preset=preset)
        assert resolve("prunesid", **full) == full
    needs = requirements("prunesid", preset="release", layer=3)
    assert needs.cls
    assert needs.cls_attention
    assert needs.layers == {3}
    assert not needs.keys
    assert not requirements("prunesid").cls_attention
    with pytest.raises(ValueError, match="cap has no effect with threshold='matched'"):
        resolve("prunesid", preset="matched", cap="release")
    with pytest.raises(ValueError, match="lam has no effect with threshold='off'"):
        resolve("prunesid", threshold="off", lam=1.0)


def test_missing_cls_is_named_with_the_ways_out():
    bare = VisionRecord(record().features)
    with pytest.raises(ValueError, match=r"cls_attention, cls.*score='abs_v'.*cls_token=False"):
        compress(bare, "prunesid", budget=8, preset="release")
    way_out = {"preset": "release", "score": "abs_v", "cls_token": False}
    assert compress(bare, "prunesid", budget=8, **way_out).count.tolist() == [8, 8]
