"""From a budget to counts per layer: the published numbers, other depths, impossible budgets."""

from __future__ import annotations

import re
import sys
from types import ModuleType

import pytest
import torch

from prunesid.core import registry
from prunesid.core.needs import Needs
from prunesid.core.registry import owned_by, withdraw
from prunesid.methods import decoder
from prunesid.methods.decoder import DecoderShape, Schedule, plan
from prunesid.methods.decoder.clusters import cluster_means, density_peaks
from prunesid.methods.decoder.schedule import Choice, Stage, scaled, scaled_stages
from prunesid.methods.registry import DECODER, METHODS, list_methods, requirements

LLAVA = DecoderShape(depth=32, tokens=576)
POCKET = DecoderShape(depth=6, tokens=576)


def entering(method, shape, budget, **params):
    return plan(method, shape, budget, **params).entering(shape)


def mean(method, shape, budget, **params):
    counts = entering(method, shape, budget, **params)
    return sum(counts) / len(counts)


@pytest.mark.parametrize(
    ("k", "kept"), [(None, (166, 98, 30)), (2, (166, 98, 30)), (3, (152, 82, 11))]
)
def test_fastv_keeps_the_published_counts(k, kept):
    for budget, count in zip((192, 128, 64), kept, strict=True):
        layers = k or 2
        assert entering("fastv", LLAVA, budget, k=k) == (576,) * layers + (count,) * (32 - layers)
        assert mean("fastv", LLAVA, budget, k=k) == pytest.approx(budget, abs=0.5)
    assert entering("fastv", LLAVA, None, k=3, keep=288)[3:] == (288,) * 29


@pytest.mark.parametrize(("budget", "hit"), [(192, 206), (128, 145), (64, 82)])
def test_sparsevlms_published_lists_exceed_their_name(budget, hit):
    assert mean("sparsevlm", LLAVA, budget, lists="published") == pytest.approx(hit, abs=0.6)
    counts = entering("sparsevlm", LLAVA, budget, lists="published")
    assert [counts.index(each) for each in dict.fromkeys(counts)] == [0, 3, 7, 16]
    assert mean("sparsevlm", LLAVA, budget) == pytest.approx(budget, abs=0.5)


def test_sparsevlms_published_lists_with_their_clusters():
    counts = entering("sparsevlm", LLAVA, 192, lists="published")
    assert list(dict.fromkeys(counts)) == [576, 309, 204, 113]
    plain = entering("sparsevlm", LLAVA, 192, lists="published", recycle=False)
    assert list(dict.fromkeys(plain)) == [576, 300, 200, 110]
    with pytest.raises(ValueError, match="Unknown published budget of sparsevlm 100.*Available"):
        plan("sparsevlm", LLAVA, 100, lists="published")


@pytest.mark.parametrize("shape", [LLAVA, POCKET, DecoderShape(28, 729), DecoderShape(12, 400)])
@pytest.mark.parametrize("share", [0.25, 0.3, 0.5, 0.9])
def test_a_budget_is_met(shape, share):
    budget = round(share * shape.tokens)
    for method, params in (
        ("fastv", {}),
        ("sparsevlm", {}),
        ("sparsevlm", {"recycle": False}),
        ("mustdrop", {"rule": "budget"}),
    ):
        # Half a token in every layer, and clusters that come and go.
        hit = mean(method, shape, budget, **params)
        assert hit == pytest.approx(budget, abs=1.2), (method, params)


def test_darts_count_is_truncated_as_upstreams():
    # A reduction ratio of 1 - 192 / 576, and the explicit flag of 192.
    assert entering("dart", LLAVA, None, keep=192)[2:] == (188,) * 30
    assert entering("dart", LLAVA, None, keep=192, count="flag")[2:] == (196,) * 30
    assert entering("dart", LLAVA, 128)[2:] == (4 + 8 * (98 // 8),) * 30


def test_mustdrops_budget_names_its_thresholds():
    assert plan("mustdrop", LLAVA, 64).entering(LLAVA) is None
    assert plan("mustdrop", LLAVA, 64).shrink_from == 2
    with pytest.raises(ValueError, match="published budget of mustdrop 100.*rule='budget'"):
        plan("mustdrop", LLAVA, 100)
    with pytest.raises(ValueError, match="both thresholds"):
        plan("mustdrop", LLAVA, 64, global_threshold=0.1)
    with pytest.raises(ValueError, match="above 0"):
        plan("mustdrop", LLAVA, 64, global_threshold=0, individual_threshold=0.1)
    counts = entering("mustdrop", LLAVA, 192, rule="budget")
    assert [counts.index(each) for each in dict.fromkeys(counts)] == [0, 3, 7, 11, 15]


def test_mustdrop_alone_reads_the_towers_attention():
    assert requirements("mustdrop") == Needs(last_cls_attention=True)
    assert requirements("mustdrop", key_share=0) == requirements("fastv") == Needs()


def test_mustdrops_key_set_is_the_floor_of_its_budget():
    counts = {
        share: min(entering("mustdrop", LLAVA, 120, rule="budget", key_share=share))
        for share in (0, 0.08)
    }
    assert counts[0.08] == 47 > counts[0]
    with pytest.raises(ValueError, match="smaller key_share"):
        plan("mustdrop", LLAVA, 64, rule="budget")


def test_what_a_view_does_not_hold_cannot_be_needed():
    with owned_by("test of needs"):
        decoder.register("greedy_reader", needs=Needs(keys=True))(lambda shape, budget: Schedule())
    try:
        with pytest.raises(ValueError, match="last_cls_attention alone"):
            requirements("greedy_reader")
    finally:
        withdraw("test of needs")


def test_stages_follow_the_depth():
    assert scaled(2, 32) == 2 and scaled(2, 6) == 1 and scaled(2, 64) == 4 and scaled(3, 1) == 1
    assert scaled_stages((3, 7, 16), 32) == (3, 7, 16)
    assert scaled_stages((3, 7, 16), 28) == (3, 6, 14)
    assert scaled_stages((3, 7, 16), 6) == (1, 2, 3)
    assert scaled_stages((3, 7, 16), 2) == (1,)
    assert scaled_stages((3, 7, 16), 1) == ()


@pytest.mark.parametrize("method", ["fastv", "dart", "sparsevlm", "mustdrop"])
def test_an_impossible_budget_names_the_smallest_possible_one(method):
    params = {"rule": "budget"} if method == "mustdrop" else {}
    with pytest.raises(ValueError, match=r"first 1, which alone is a mean of 96.0.*possible") as e:
        plan(method, POCKET, 64, **params)
    smallest = int(re.search(r"budget is (\d+)", str(e.value)).group(1))
    assert 96 < smallest < 140
    plan(method, POCKET, smallest, **params)
    with pytest.raises(ValueError, match="possible"):
        plan(method, POCKET, smallest - 1, **params)


def test_impossible_layers_and_budgets():
    with pytest.raises(ValueError, match="smallest possible budget is 193, or with k below 2"):
        plan("fastv", POCKET, 192, k=2)
    with pytest.raises(ValueError, match="possible are 1 to 5"):
        plan("fastv", POCKET, 128, k=6)
    for method in ("fastv", "dart", "sparsevlm"):
        with pytest.raises(ValueError, match="decoder of one layer"):
            plan(method, DecoderShape(1, 576), 128)
    with pytest.raises(
        ValueError, match="published stages come after 3, 7, 16 layers; this decoder has 3"
    ):
        plan("sparsevlm", DecoderShape(3, 576), 192, depths="published")
    with pytest.raises(ValueError, match="either a budget or keep"):
        plan("fastv", POCKET, 128, keep=30)
    with pytest.raises(ValueError, match="either a budget or keep"):
        plan("fastv", POCKET, None)
    with pytest.raises(ValueError, match="needs a budget"):
        plan("sparsevlm", POCKET, None)
    for wrong in (0, -1, 1.5, True):
        with pytest.raises(ValueError, match="positive number of tokens"):
            plan("fastv", POCKET, wrong)
    with pytest.raises(ValueError, match="Unknown method 'fastvv'. Did you mean 'fastv'?"):
        plan("fastvv", POCKET, 128)
    with pytest.raises(ValueError, match="Unknown parameter of fastv 'kept'. Did you mean 'keep'?"):
        plan("fastv", POCKET, 128, kept=3)


def test_a_method_comes_from_outside():
    module = ModuleType("late_plugin")
    sys.modules["late_plugin"] = module
    try:
        with registry.owned_by("late_plugin"):

            @decoder.register("first_half")
            def first_half(shape, budget):
                half = shape.tokens // 2
                choose = lambda view: Choice(torch.arange(half))  # noqa: E731
                return Schedule((Stage(0, choose, leaves=half),))

        assert "first_half" in list_methods(DECODER)
        assert entering("first_half", POCKET, 100) == (576,) + (288,) * 5
        assert "late_plugin" in METHODS.modules_of("first_half")
    finally:
        registry.withdraw("late_plugin")
        del sys.modules["late_plugin"]
    assert list(list_methods(DECODER)) == ["dart", "fastv", "mustdrop", "sparsevlm"]


def test_density_peaks_find_separate_groups():
    generator = torch.Generator().manual_seed(1)
    middles = torch.tensor([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]], dtype=torch.float64)
    group = torch.arange(24) % 3
    points = middles[group] + 0.1 * torch.randn(24, 2, generator=generator, dtype=torch.float64)
    centers, member = density_peaks(points, 3, noise=1e-6)
    assert sorted(group[centers].tolist()) == [0, 1, 2]
    assert torch.equal(group[centers][member], group)
    means = cluster_means(points, member, 3)
    torch.testing.assert_close(means, torch.stack([points[member == i].mean(0) for i in range(3)]))


def test_density_peaks_of_copies_and_of_few():
    centers, member = density_peaks(torch.ones(6, 4), 2, noise=0.0)
    assert centers.unique().numel() == 2
    assert member[centers].tolist() == [0, 1] and member.tolist().count(1) == 1
    centers, member = density_peaks(torch.ones(1, 4), 1, noise=1e-6)
    assert centers.tolist() == member.tolist() == [0]
