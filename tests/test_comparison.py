"""Comparison: known effects found, everything paired, one tidy table, the same bytes each time."""

import numpy as np
import pandas as pd
import pytest
from synthetic_scores import BENCHMARKS, GQA, MME, POPE, ablation_of, grouping, scores_of

from prunesid.study.comparison import compare, read_comparison, write_comparison
from prunesid.study.config import Bootstrap
from prunesid.study.measurement import SCORE_COLUMNS, measure, read_scores

FEW = Bootstrap(resamples=400)


@pytest.fixture(scope="module")
def scores() -> pd.DataFrame:
    return scores_of(grouping().arms)


@pytest.fixture(scope="module")
def table(scores: pd.DataFrame) -> pd.DataFrame:
    return compare(scores, grouping(), BENCHMARKS, FEW)


def line(table: pd.DataFrame, row: str, column: str, benchmark: str) -> pd.Series:
    own = table[
        (table["row"] == row) & (table["column"] == column) & (table["benchmark"] == benchmark)
    ]
    assert len(own) == 1
    return own.iloc[0]


def test_one_line_per_row_column_and_benchmark(table):
    rows, columns, benchmarks = 3, 3, 4
    assert len(table) == benchmarks + rows * (columns * (benchmarks + 1) + 1)
    assert not table.duplicated(["row", "column", "benchmark"]).any()
    assert (table.loc[table["row"] == "vanilla", ["grouping", "budget"]] == "").all(axis=None)
    assert set(table["budget"]) == {"", "64", "128", "192"}


def test_values_are_the_metric_averaged_over_seeds(scores, table):
    own = scores[(scores["benchmark"] == GQA.name) & (scores["arm"] == "default")]
    psca = line(table, "grouping=psca", "budget=64", GQA.name)
    assert psca["value"] == pytest.approx(100 * own["score"].mean())
    names = ["grouping-random", "grouping-random_seed-1", "grouping-random_seed-2"]
    means = [
        100 * scores.loc[(scores["benchmark"] == GQA.name) & (scores["arm"] == n), "score"].mean()
        for n in names
    ]
    random = line(table, "grouping=random", "budget=64", GQA.name)
    assert random["value"] == pytest.approx(np.mean(means))
    assert random["spread"] == pytest.approx(np.std(means, ddof=1))
    assert random["arms"].split() == names
    assert (random["seeds"], psca["seeds"]) == (3, 1)
    assert np.isnan(psca["spread"])


def test_differences_are_from_the_reference_under_the_same_column(table):
    for column in ("budget=64", "budget=128"):
        for name in (GQA.name, MME.name, "average"):
            psca, random = (line(table, f"grouping={g}", column, name) for g in ("psca", "random"))
            assert random["diff"] == pytest.approx(random["value"] - psca["value"])
            assert random["diff_low"] < random["diff"] < random["diff_high"]
            assert np.isnan(psca["diff"])
            assert np.isnan(psca["p"])


def test_intervals_hold_their_values(table):
    assert (table["ci_low"] < table["value"]).all()
    assert (table["value"] < table["ci_high"]).all()


def test_a_large_effect_is_found_and_a_corrected_p_is_no_smaller(table):
    random = line(table, "grouping=random", "budget=64", GQA.name)
    assert random["p"] < 0.01
    tested = table.dropna(subset=["p"])
    assert (tested["p_holm"] >= tested["p"]).all()
    assert len(tested) == 2 * (3 * 5 + 1)


def test_the_average_is_relative_to_all_tokens(table):
    own = [line(table, "grouping=psca", "budget=64", b.name)["value"] for b in BENCHMARKS]
    whole = [line(table, "vanilla", "all", b.name)["value"] for b in BENCHMARKS]
    average = line(table, "grouping=psca", "budget=64", "average")
    assert average["value"] == pytest.approx(
        np.mean([100 * o / w for o, w in zip(own, whole, strict=True)])
    )
    columns = [
        line(table, "grouping=psca", f"budget={n}", "average")["value"] for n in (64, 128, 192)
    ]
    overall = line(table, "grouping=psca", "overall", "average")
    assert overall["value"] == pytest.approx(np.mean(columns))
    assert average["unit"] == "% of all tokens"


def test_the_average_of_a_seeded_row_keeps_its_seeds(table):
    average = line(table, "grouping=kmeans", "overall", "average")
    assert average["seeds"] == 3
    assert average["spread"] > 0


def test_single_runs_of_accuracy_get_mcnemar_and_all_else_the_bootstrap():
    ablation = ablation_of(vary={"num_groups": [16, 8]})
    scores = scores_of(ablation.arms, (GQA, POPE, MME), images=40)
    table = compare(scores, ablation, (GQA, POPE, MME), FEW)
    tests = table[table["row"] == "num_groups=8"].set_index("benchmark")["test"]
    assert tests.to_dict() == {
        GQA.name: "mcnemar", POPE.name: "bootstrap", MME.name: "bootstrap", "average": "bootstrap"
    }  # fmt: skip
    gqa = line(table, "num_groups=8", "all", GQA.name)
    assert gqa["p"] == gqa["p_mcnemar"] != gqa["p_bootstrap"]


def test_partial_scores_get_no_mcnemar():
    ablation = ablation_of(vary={"num_groups": [16, 8]})
    scores = scores_of(ablation.arms, (GQA,), images=30)
    scores.loc[0, "score"] = 0.3
    row = line(compare(scores, ablation, (GQA,), FEW), "num_groups=8", "all", GQA.name)
    assert row["test"] == "bootstrap"
    assert np.isnan(row["p_mcnemar"])


def test_equal_arms_differ_by_nothing():
    ablation = ablation_of(vary={"num_groups": [16, 8]})
    scores = scores_of(ablation.arms, (GQA,), images=30)
    same = scores[scores["arm"] == "num_groups-16"].assign(arm="num_groups-8")
    scores = pd.concat([scores[scores["arm"] != "num_groups-8"], same])
    row = line(compare(scores, ablation, (GQA,), FEW), "num_groups=8", "all", GQA.name)
    assert (row["diff"], row["diff_low"], row["diff_high"], row["p"]) == (0, 0, 0, 1)


def test_tokens_are_counted_per_image(scores):
    ablation = grouping()
    uneven = scores.copy()
    first = (uneven["arm"] == "default") & (uneven["image_id"] == "img0")
    uneven.loc[first, "tokens"] = 60
    row = line(compare(uneven, ablation, (GQA,), FEW), "grouping=psca", "budget=64", GQA.name)
    assert (row["tokens_min"], row["tokens_max"]) == (60, 64)
    assert row["tokens_mean"] == pytest.approx(64 - 4 / 120)


def test_the_order_of_lines_changes_nothing(scores, table, tmp_path):
    shuffled = scores.sample(frac=1, random_state=0)
    # MME's pairs are told by their order within image and category.
    shuffled = shuffled.sort_values(["benchmark", "arm", "image_id", "category"], kind="stable")
    for name, own in (("one", scores), ("other", shuffled)):
        write_comparison(compare(own, grouping(), BENCHMARKS, FEW), tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


def test_another_arm_or_benchmark_changes_no_other_line(scores, table):
    alone = compare(scores, grouping(), (POPE,), FEW)
    for row in ("grouping=psca", "grouping=random"):
        one, other = (line(t, row, "budget=64", POPE.name) for t in (alone, table))
        columns = ["value", "ci_low", "ci_high", "tokens_mean"]
        assert np.allclose(one[columns].astype(float), other[columns].astype(float))


def test_a_table_survives_its_file(table, tmp_path):
    write_comparison(table, tmp_path / "comparison.csv")
    back = read_comparison(tmp_path / "comparison.csv")
    assert list(back.columns) == list(table.columns)
    assert (
        back[["row", "column", "budget", "test"]] == table[["row", "column", "budget", "test"]]
    ).all(axis=None)
    assert np.allclose(back["value"], table["value"], rtol=1e-5)
    write_comparison(back, tmp_path / "again.csv")
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "comparison.csv").read_bytes()


def test_scores_come_from_one_file_per_benchmark(scores, tmp_path):
    for name, own in scores.groupby("benchmark"):
        own.to_parquet(tmp_path / f"{name}.parquet")
    back = read_scores(sorted(tmp_path.glob("*.parquet")))
    assert tuple(back.columns) == SCORE_COLUMNS
    assert len(back) == len(scores)


def test_what_is_missing_is_named(scores):
    arms = [arm.name for arm in grouping().arms]
    with pytest.raises(ValueError, match=r"pocket_gqa: there are no scores of default"):
        measure(scores[scores["arm"] != "default"], GQA, arms, FEW)
    twice = pd.concat([scores, scores[(scores["arm"] == "default")].iloc[:1]])
    with pytest.raises(ValueError, match="default answered question 0 twice"):
        measure(twice, GQA, arms, FEW)
    short = scores[(scores["arm"] != "default") | (scores["question_id"] != "3")]
    with pytest.raises(ValueError, match="default answered other questions than vanilla"):
        measure(short, GQA, arms, FEW)
