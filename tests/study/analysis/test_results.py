"""First questions to the results: every arm once, losses that add up, known correlations."""

import numpy as np
import pandas as pd
import pytest
from builders.synthetic_results import write_results
from builders.synthetic_scores import BENCHMARKS, ablation_of, grouping

from prunesid.study.analysis.results import (
    by_budget,
    disagreements,
    image_correlations,
    losses,
    read_results,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("results") / "made_up"
    twice = ablation_of("twice", vary={"grouping": ["psca", "random"]}, across={"budget": [64]})
    write_results(place, [grouping(), twice])
    return place


@pytest.fixture(scope="module")
def results(folder):
    return read_results(folder)


def test_all_that_is_there_or_what_is_named(folder, results):
    assert set(results.benchmarks) == {b.name for b in BENCHMARKS}
    assert set(results.comparisons["ablation"]) == {"grouping", "twice"}
    some = read_results(folder, ["pocket_pope"], ["twice"])
    assert some.benchmarks == ["pocket_pope"]
    assert set(some.information["benchmark"]) == {"pocket_pope"}
    assert set(some.comparisons["ablation"]) == {"twice"}


def test_no_results_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="make reproduce"):
        read_results(tmp_path)


def test_every_setting_once_from_best_to_worst(results):
    table = by_budget(results)
    assert len(table) == 9
    assert not table["arms"].duplicated().any()
    assert list(table["tokens"].unique()) == [64, 128, 192]
    for _, own in table.groupby("tokens"):
        assert own["value"].is_monotonic_decreasing
    assert (table["ci_low"] <= table["value"]).all() and (table["value"] <= table["ci_high"]).all()


def test_averages_over_fewer_benchmarks_are_left_out(results):
    fewer = results.comparisons
    fewer = fewer[~((fewer["ablation"] == "grouping") & (fewer["benchmark"] == "pocket_gqa"))]
    other = type(results)(results.scores, fewer, results.information)
    assert set(by_budget(other)["ablation"]) == {"twice"}


def test_every_question_has_one_outcome(results):
    pair = disagreements(results, "vanilla", "default")
    assert len(pair) == results.scores[["benchmark", "question_id"]].drop_duplicates().shape[0]
    assert not pair["outcome"].isna().any()
    only = pair["outcome"] == "only vanilla"
    assert (pair.loc[only, "answer_first"] == pair.loc[only, "target"]).all()
    assert (pair.loc[only, "answer_second"] != pair.loc[only, "target"]).all()
    swapped = disagreements(results, "default", "vanilla")["outcome"]
    assert (swapped == "only vanilla").sum() == only.sum()


def test_two_different_arms_that_were_run(results):
    with pytest.raises(ValueError, match="Did you mean 'vanilla'"):
        disagreements(results, "vanila", "default")
    with pytest.raises(ValueError, match="not with itself"):
        disagreements(results, "default", "default")


def test_losses_add_up_to_the_difference_of_the_arms(results):
    lost = losses(results, "default")
    assert len(lost) == len(results.information)
    own = results.scores[results.scores["benchmark"] == "pocket_gqa"]
    means = own.groupby("arm")["score"].mean()
    # Every image of this benchmark is asked as often.
    mean = lost.loc[lost["benchmark"] == "pocket_gqa", "loss"].mean()
    assert mean == pytest.approx(means["vanilla"] - means["default"])


def table_of(loss: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame({"benchmark": "b", "phi": np.linspace(0, 1, len(loss)), "loss": loss})


def test_a_known_correlation_is_found_with_its_interval():
    rng = np.random.default_rng(0)
    rising = image_correlations(table_of(np.arange(60) ** 3.0)).iloc[0]
    assert rising["correlation"] == pytest.approx(1)
    falling = image_correlations(table_of(-np.arange(60.0) + rng.normal(size=60) * 10)).iloc[0]
    assert falling["high"] < -0.5
    nothing = image_correlations(table_of(rng.normal(size=60))).iloc[0]
    assert nothing["low"] < 0 < nothing["high"]
    assert np.isnan(image_correlations(table_of(np.zeros(60))).iloc[0]["correlation"])
