"""Orders of methods compared: tau and its interval, places, and what all models share."""

from dataclasses import replace

import numpy as np
import pytest
from builders.chapters import FEW, RANKED, chapter_of, spread, study_of
from builders.synthetic_scores import ablation_of
from scipy.stats import kendalltau

from prunesid.study.analysis.comparison import AVERAGE, compare_samples
from prunesid.study.analysis.travel import (
    EVERYWHERE,
    SOMEWHERE,
    TURNED,
    Standing,
    by_budget,
    correlate,
    correlations,
    differences,
    labels,
    method_of,
    places,
    standings,
    tau_b,
)
from prunesid.study.config.chapters import METHODS, compared


def standing(values, error=0.0, source="one", sure=(), seed=0, resamples=400):
    """Methods a, b, ... of these values, with resamples around them."""
    noise = error * np.random.default_rng(seed).standard_normal((len(values), resamples))
    names = [chr(ord("a") + place) for place in range(len(values))]
    drawn = dict(zip(names, np.asarray(values)[:, None] + noise, strict=True))
    return Standing(source, 64, 576, dict(zip(names, values, strict=True)), drawn, frozenset(sure))


@pytest.fixture(scope="module")
def chapter(tmp_path_factory):
    return chapter_of(tmp_path_factory.mktemp("one"), "One", spread(RANKED))


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """The same methods but for one, the other way round, with other budgets and images."""
    skill = spread([*reversed(RANKED[1:]), "random"])
    folder = tmp_path_factory.mktemp("other")
    return chapter_of(folder, "Other", skill, (320, 160, 640), seed=1, whole=2880)


def test_tau_is_scipys_in_every_resample():
    random = np.random.default_rng(0)
    first, second = random.integers(6, size=(2, 9, 20)).astype(float)
    found = tau_b(first, second)
    for place, own in enumerate(found):
        assert own == pytest.approx(kendalltau(first[:, place], second[:, place]).statistic)
    alone = tau_b(first, second[:, :1])
    assert alone[3] == pytest.approx(kendalltau(first[:, 3], second[:, 0]).statistic)
    assert np.isnan(tau_b(np.ones((5, 1)), first[:5])).all()


def test_a_chapter_agrees_with_itself_and_not_with_its_opposite(chapter):
    for own in standings(chapter, labels([chapter])):
        assert correlate(own, own, 0.95) == {"methods": 6, "value": 1, "low": 1, "high": 1}
        mirrored = replace(
            own,
            values={name: -value for name, value in own.values.items()},
            drawn={name: -drawn for name, drawn in own.drawn.items()},
        )
        assert correlate(own, mirrored, 0.95) == {"methods": 6, "value": -1, "low": -1, "high": -1}


@pytest.mark.parametrize(("error", "fixed"), [(0.1, False), (0.3, False), (0.3, True)])
def test_the_interval_covers_the_tau_of_the_true_values(error, fixed):
    """The percentiles alone hold it in two thirds of the cases with the larger errors."""
    covered = []
    for seed in range(150):
        random = np.random.default_rng(seed)
        truth = random.standard_normal((2, 12))
        truth[1] = 0.9 * truth[0] + 0.44 * truth[1]
        errors = np.array([error, 0.0 if fixed else error])
        seen = truth + errors[:, None] * random.standard_normal((2, 12))
        sides = (
            standing(values, size, seed=seed + place)
            for place, (values, size) in enumerate(zip(seen, errors, strict=True))
        )
        found = correlate(*sides, 0.95)
        assert -1 <= found["low"] <= found["value"] <= found["high"] <= 1
        true = kendalltau(*truth).statistic
        covered.append(found["low"] - 1e-9 <= true <= found["high"] + 1e-9)
    assert np.mean(covered) > 0.88


def test_what_one_side_lacks_is_left_out_and_too_few_are_counted_alone():
    whole = standing([6.0, 5, 4, 3, 2, 1])
    part = replace(whole, values={name: whole.values[name] for name in "abcde"})
    assert correlate(whole, part, 0.95)["methods"] == METHODS
    few = replace(whole, values={name: whole.values[name] for name in "abcd"})
    assert correlate(whole, few, 0.95) == {"methods": METHODS - 1}
    equal = standing([1.0] * 6)
    assert correlate(whole, equal, 0.95) == {"methods": 6}


def test_budgets_are_matched_by_their_order(chapter, other):
    names = labels([chapter, other])
    own, rival = standings(chapter, names), standings(other, names)
    assert [s.kept for s in own] == [64, 128]
    assert [(s.kept, s.tokens) for s in rival] == [(160, 2880), (320, 2880), (640, 2880)]
    table = correlations([("One", own, rival)], 0.95)
    assert list(table["budget"]) == [1, 2]
    assert (table["methods"] == len(RANKED) - 1).all()
    assert (table["value"] == -1).all()


def test_values_are_those_of_the_comparison(chapter):
    names = labels([chapter])
    line = compare_samples(chapter.samples).set_index(["row", "column", "benchmark"])["value"]
    for own, cells in zip(standings(chapter, names), by_budget(chapter.ablation), strict=True):
        for cell in cells:
            value = line[cell.row.key, cell.column.key, AVERAGE]
            assert own.values[names[method_of(cell)]] == pytest.approx(value)


def test_places_count_the_better_ones_and_equal_ones_share_theirs():
    own = standing([3.0, 9, 3, 5, 1], sure=[("b", "a"), ("b", "c"), ("b", "e"), ("d", "e")])
    table = places([("model", [own, own])])
    assert list(table["budget"]) == [1] * 5 + [2] * 5
    first = table[table["budget"] == 1].set_index("method")
    assert dict(first["place"]) == {"a": 3, "b": 1, "c": 3, "d": 2, "e": 5}
    assert dict(first["shared"]) == {"a": True, "b": False, "c": True, "d": False, "e": False}
    assert (first["low"] <= first["place"]).all() and (first["place"] <= first["high"]).all()
    assert tuple(first.loc["b", ["low", "high"]]) == (1, 2)
    assert tuple(first.loc["e", ["low", "high"]]) == (3, 5)
    untested = places([("model", [replace(own, sure=None)])])
    assert untested[["low", "high"]].isna().all(axis=None)


def test_significant_differences_are_those_of_the_pairs(chapter):
    names = labels([chapter])
    lines = chapter.pairs[chapter.pairs["benchmark"] == AVERAGE]
    for own, column in zip(standings(chapter, names), ("budget=64", "budget=128"), strict=True):
        sure = lines[(lines["column"] == column) & (lines["p_holm"] < 0.05)]
        assert 0 < len(own.sure) == (sure["diff"] > 0).sum()
        assert all(own.values[better] > own.values[worse] for better, worse in own.sure)


def test_what_becomes_of_a_difference():
    sure = [("a", "b"), ("a", "c"), ("c", "d")]
    one = standing([4.0, 3, 2, 1, 0], source="one", sure=sure)
    two = standing([4.0, 3, 2, 1, 0], source="two", sure=[("a", "b"), ("d", "c")])
    three = standing([4.0, 3, 2, 1], source="three", sure=[("a", "b"), ("d", "c"), ("b", "d")])
    table = differences([[one, one], [two], [three]])
    # At the second budget one model has nothing to be compared with.
    assert set(table["budget"]) == {1}
    assert len(table) == 10
    found = table.set_index(["method", "worse"])
    assert found.loc[("a", "b"), ["verdict", "sure", "models"]].tolist() == [
        EVERYWHERE,
        "one; two; three",
        3,
    ]
    assert found.loc[("a", "c"), ["verdict", "sure"]].tolist() == [SOMEWHERE, "one"]
    assert found.loc[("b", "d"), ["verdict", "sure"]].tolist() == [SOMEWHERE, "three"]
    turned = found.loc[("c", "d")]
    assert turned[["verdict", "sure", "turned"]].tolist() == [TURNED, "one", "two; three"]
    assert found.loc[("a", "e"), ["verdict", "models"]].tolist() == ["", 2]
    assert differences([[one]]).empty


def test_a_chapter_against_its_opposite_turns_round_and_against_itself_does_not(chapter, other):
    names = labels([chapter, other])
    own, rival = standings(chapter, names), standings(other, names)
    verdicts = set(differences([own, rival])["verdict"])
    assert TURNED in verdicts and EVERYWHERE not in verdicts
    again = [replace(s, source="Again") for s in own]
    assert set(differences([own, again])["verdict"]) <= {EVERYWHERE, ""}


def test_a_method_is_the_same_at_every_budget_and_seed_and_in_every_study():
    rows = [
        {"method": "random", "label": "random"},
        {"method": "prunesid", "label": "PruneSID"},
        {"method": "prunesid", "dynamic": "benchmark", "label": "PruneSID-Dyn"},
        {"method": "prunesid", "preset": "release", "label": "released code"},
    ]
    ablation = ablation_of(vary=rows, across={"budget": [64, 128]})
    named = [{method_of(cell) for cell in cells} for cells in by_budget(ablation)]
    assert named[0] == named[1]
    assert len(named[0]) == len(rows)


def test_labels_are_the_first_ones_and_tell_what_is_alike_apart(chapter):
    rows = [
        {"method": "grid", "label": "every so many"},
        {"method": "prunesid", "preset": "release", "label": "DivPrune"},
    ]
    ablation = ablation_of(vary=rows, across={"budget": [64]})
    found = labels([chapter, replace(chapter, title="Late", ablation=ablation)])
    assert found["grid"] == "grid"
    assert found["divprune"] == "DivPrune"
    assert found["prunesid preset=release"] == "DivPrune (Late)"


def test_the_first_ablation_of_enough_methods_by_budget_stands_for_a_study(tmp_path):
    study, methods = study_of(tmp_path, "One", spread(RANKED))
    few = ablation_of("few", vary={"preset": ["paper", "release"]}, across={"budget": [64, 128]})
    rows = [{"method": name} for name in RANKED]
    crossed = ablation_of("crossed", vary=rows, across={"dynamic": [None, "benchmark"]})
    assert compared(replace(study, ablations=(few, crossed, methods))) == methods
    assert compared(replace(study, ablations=(few,))) is None


def test_a_single_image_is_too_few(tmp_path):
    chapter = chapter_of(tmp_path, "One", spread(RANKED), (64,), images=1)
    assert chapter.samples is None
    assert standings(chapter, labels([chapter])) == []


def test_resamples_are_those_that_are_asked_for(chapter):
    own = standings(chapter, labels([chapter]))[0]
    assert {len(drawn) for drawn in own.drawn.values()} == {FEW.resamples}
