"""Comparison: known effects found, everything paired, one tidy table, the same bytes each time."""

import itertools

import numpy as np
import pandas as pd
import pytest
from builders.synthetic_scores import BENCHMARKS, GQA, MME, POPE, ablation_of, grouping, scores_of

from prunesid.study.analysis.comparison import (
    arm_values,
    compare,
    read_comparison,
    reference_arms,
    sample,
    write_csv,
)
from prunesid.study.analysis.measurement import SCORE_COLUMNS, measure, read_scores
from prunesid.study.analysis.sign_flip import contributions, sign_flip_p
from prunesid.study.config.study import Bootstrap

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


def test_one_test_for_every_metric_and_mcnemar_beside_it():
    ablation = ablation_of(vary={"num_groups": [16, 8]})
    scores = scores_of(ablation.arms, (GQA, POPE, MME), images=40)
    table = compare(scores, ablation, (GQA, POPE, MME), FEW)
    tested = table[table["row"] == "num_groups=8"].set_index("benchmark")
    assert set(tested["test"]) == {"sign_flip"}
    assert (tested["p"] > 0).all()
    assert tested["p_mcnemar"].notna().to_dict() == {
        GQA.name: True,
        POPE.name: True,
        MME.name: True,
        "average": False,
    }
    assert (tested["p_bootstrap_error"] > 0).all()
    # Roughly the same question, asked twice.
    assert np.allclose(tested["p"], tested["p_bootstrap"], rtol=0.25, atol=0.05)


def test_p_swaps_the_answers_of_whole_images():
    ablation = ablation_of(vary={"num_groups": [16, 8]})
    scores = scores_of(ablation.arms, (GQA,), images=12)
    row = line(compare(scores, ablation, (GQA,), FEW), "num_groups=8", "all", GQA.name)
    by_image = scores.groupby(["arm", "image_id"])["score"].sum().unstack("arm")
    own, other = (
        next(c.arms[0].name for c in ablation.cells if c.row.key == f"num_groups={n}")
        for n in (8, 16)
    )
    change = (by_image[own] - by_image[other]).to_numpy()
    signs = np.array(list(itertools.product((-1, 1), repeat=12)))
    assert row["p"] == pytest.approx((np.abs(signs @ change) >= abs(change.sum())).mean())


def test_the_average_swaps_an_image_under_all_columns_and_seeds_at_once(scores, table):
    """p of the mean over columns is that of each image's mean, not of independent columns."""
    ablation = grouping()
    samples = sample(scores, ablation, BENCHMARKS, FEW)
    overall = line(table, "grouping=random", "overall", "average")
    parts = []
    for m, whole in zip(samples.measured, samples.vanilla, strict=True):
        each = []
        for column in ablation.columns:
            cells = {
                c.row.key: [a.name for a in c.arms] for c in ablation.cells if c.column == column
            }
            (reference,) = m.at(cells["grouping=psca"])
            each += [
                contributions(m.sums[seed], m.sums[reference], m.statistic)
                for seed in m.at(cells["grouping=random"])
            ]
        parts.append(100 * np.mean(each, axis=0) / whole.values[0] / len(BENCHMARKS))
    parts = np.concatenate(parts)
    assert parts.sum() == pytest.approx(overall["diff"], rel=0.01)
    assert overall["p"] == pytest.approx(sign_flip_p(parts), rel=1e-6)


def test_no_p_depends_on_the_seed_of_the_resamples(scores, table):
    again = compare(scores, grouping(), BENCHMARKS, Bootstrap(resamples=400, seed=1))
    for name in ("p", "p_holm", "p_mcnemar"):
        assert np.array_equal(again[name], table[name], equal_nan=True)
    assert not np.allclose(again["diff_low"], table["diff_low"], equal_nan=True)


def test_partial_scores_get_no_mcnemar():
    ablation = ablation_of(vary={"num_groups": [16, 8]})
    scores = scores_of(ablation.arms, (GQA,), images=30)
    scores.loc[0, "score"] = 0.3
    row = line(compare(scores, ablation, (GQA,), FEW), "num_groups=8", "all", GQA.name)
    assert row["test"] == "sign_flip"
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
        write_csv(compare(own, grouping(), BENCHMARKS, FEW), tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


def test_another_arm_or_benchmark_changes_no_other_line(scores, table):
    alone = compare(scores, grouping(), (POPE,), FEW)
    for row in ("grouping=psca", "grouping=random"):
        one, other = (line(t, row, "budget=64", POPE.name) for t in (alone, table))
        columns = ["value", "ci_low", "ci_high", "tokens_mean"]
        assert np.allclose(one[columns].astype(float), other[columns].astype(float))


def test_a_table_survives_its_file(table, tmp_path):
    write_csv(table, tmp_path / "comparison.csv")
    back = read_comparison(tmp_path / "comparison.csv")
    assert list(back.columns) == list(table.columns)
    assert (
        back[["row", "column", "budget", "test"]] == table[["row", "column", "budget", "test"]]
    ).all(axis=None)
    assert np.allclose(back["value"], table["value"], rtol=1e-5)
    write_csv(back, tmp_path / "again.csv")
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "comparison.csv").read_bytes()


def test_every_arm_by_itself(scores, table):
    ablation = grouping()
    samples = sample(scores, ablation, BENCHMARKS, FEW)
    values = arm_values(samples)
    assert len(values) == len(ablation.arms) * (len(BENCHMARKS) + 1)

    by_arm = values.set_index(["arm", "benchmark"])
    references = reference_arms(ablation)
    names = ["value", "ci_low", "ci_high"]
    for cell in ablation.cells:
        lines = [line(table, cell.row.key, cell.column.key, b.name) for b in BENCHMARKS]
        lines.append(line(table, cell.row.key, cell.column.key, "average"))
        for held in lines:
            own = [by_arm.loc[arm.name, held["benchmark"]] for arm in cell.arms]
            assert np.mean([o["value"] for o in own]) == pytest.approx(held["value"])
            if len(own) == 1:
                assert own[0][names].tolist() == held[names].tolist()
                one = cell.row != ablation.reference
                assert (own[0]["diff_low"] == held["diff_low"]) == one
            for arm, each in zip(cell.arms, own, strict=True):
                rival = by_arm.loc[references[arm.name].name, held["benchmark"]]
                assert each["diff"] == each["value"] - rival["value"]
                assert each["diff_low"] <= each["diff"] <= each["diff_high"]
    whole = by_arm.loc["vanilla"]
    assert whole.at["average", "value"] == 100 and whole["diff"].isna().all()
    assert whole["tokens"].isna().tolist() == [True] + [False] * len(BENCHMARKS)
    measured = samples.measured[0]
    assert whole.at[GQA.name, "questions"] == measured.scores.shape[1]
    assert whole.at[GQA.name, "images"] == measured.tokens.shape[1]


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
