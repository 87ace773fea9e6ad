"""Losses by question family and by information score are those of the questions in question."""

import numpy as np
import pandas as pd
import pytest
from builders.synthetic_scores import GQA, MME, POPE, ablation_of, scores_of

from prunesid.study.analysis.comparison import write_csv
from prunesid.study.analysis.strata import THIRDS, by_stratum, read_strata
from prunesid.study.config.study import Bootstrap

FEW = Bootstrap(resamples=300)
BENCHMARKS = (GQA, MME, POPE)


@pytest.fixture(scope="module")
def work():
    ablation = ablation_of(
        vary={"method": ["random", "grid"]},
        across={"budget": [64, 128]},
        seeds=2,
        reference={"method": "grid"},
    )
    scores = scores_of(ablation.arms, BENCHMARKS, images=30, skill=lambda arm: 0.8)
    images = scores.groupby("benchmark")["image_id"].unique()
    information = pd.concat(
        pd.DataFrame({"benchmark": name, "image_id": ids, "phi": np.arange(len(ids)) / 100})
        for name, ids in images.items()
    )
    return ablation, scores, information, by_stratum(scores, ablation, BENCHMARKS, information, FEW)


def test_every_line_is_the_mean_over_its_questions_and_seeds(work):
    ablation, scores, information, table = work
    phi = information.set_index(["benchmark", "image_id"])["phi"]
    for line in table.itertuples():
        cell = next(
            c for c in ablation.cells if (c.row.key, c.column.key) == (line.row, line.column)
        )
        own = scores[scores["benchmark"] == line.benchmark]
        if line.kind == "family":
            own = own[own["category"] == line.stratum]
        else:
            known = phi[line.benchmark].sort_values().index.tolist()
            place = THIRDS.index(line.stratum) * 10
            own = own[own["image_id"].isin(known[place : place + 10])]
        value = own[own["arm"].isin([a.name for a in cell.arms])]["score"].mean()
        whole = own[own["arm"] == "vanilla"]["score"].mean()
        assert (line.value, line.whole) == pytest.approx((100 * value, 100 * whole))
        assert line.diff == pytest.approx(100 * (value - whole))
        assert line.diff_low <= line.diff <= line.diff_high
        assert line.questions == (own["arm"] == "vanilla").sum()


def test_there_are_thirds_for_every_benchmark_and_families_where_it_has_several(work):
    *_, table = work
    assert set(table.loc[table["kind"] == "phi", "stratum"]) == set(THIRDS)
    families = table[table["kind"] == "family"].groupby("benchmark")["stratum"].nunique()
    assert families.to_dict() == {GQA.name: 4, MME.name: 4}


def test_ties_share_a_third_and_unknown_images_are_in_none(work):
    ablation, scores, information, _ = work
    same = information.assign(phi=0.5)
    table = by_stratum(scores, ablation, (GQA,), same, FEW)
    assert set(table.loc[table["kind"] == "phi", "stratum"]) == {"middle"}
    nothing = information[:0]
    assert not (by_stratum(scores, ablation, (GQA,), nothing, FEW)["kind"] == "phi").any()


def test_the_table_survives_its_file(work, tmp_path):
    *_, table = work
    write_csv(table, tmp_path / "strata.csv")
    back = read_strata(tmp_path / "strata.csv")
    assert list(back.columns) == list(table.columns)
    assert np.allclose(back["diff"], table["diff"], rtol=1e-4)
