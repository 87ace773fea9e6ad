"""Histograms of the information score: all images counted once, on common bins."""

import numpy as np
import pandas as pd
import pytest
from builders.synthetic_scores import GQA, SQA

from prunesid.study.config.study import Bootstrap
from prunesid.study.report.information import bin_edges, draw, histogram, write_information

FEW = Bootstrap(resamples=200)


@pytest.fixture(scope="module")
def information():
    random = np.random.default_rng(0)
    return pd.concat([
        pd.DataFrame({"benchmark": b.name, "phi": center + 0.05 * random.standard_normal(count)})
        for b, center, count in ((GQA, 0.8, 90), (SQA, 0.7, 40))
    ])  # fmt: skip


def test_every_image_is_counted_once(information):
    data = histogram(information, (GQA, SQA), FEW)
    assert np.allclose(data.groupby("benchmark")["frequency"].sum(), 100)
    one, other = (data[data["benchmark"] == b.name] for b in (GQA, SQA))
    assert np.allclose(one[["low", "high"]], other[["low", "high"]])
    own = information[information["benchmark"] == GQA.name]["phi"]
    third = one.iloc[3]
    inside = ((own >= third["low"]) & (own < third["high"])).sum()
    assert third["frequency"] == pytest.approx(100 * inside / 90)
    assert one["mean"].iloc[0] == pytest.approx(own.mean())
    assert one["std"].iloc[0] == pytest.approx(own.std())
    assert one["images"].iloc[0] == 90


@pytest.mark.parametrize("values", [[0.5], [0.7, 0.9], [0.0, 2.0], [0.8, 0.8001], [0.75, 0.8]])
def test_bins_hold_all_values_on_a_round_grid(values):
    values = np.array(values)
    edges = bin_edges(values)
    assert edges[0] <= values.min()
    assert edges[-1] > values.max()
    assert 1 <= len(edges) - 1 <= 26
    assert np.allclose(edges * 400, np.round(edges * 400))


def test_the_legend_gives_mean_and_spread(information):
    data = histogram(information, (GQA, SQA), FEW)
    drawn = draw(data, (GQA, SQA))
    first = data.iloc[0]
    text = drawn.legends[0].get_texts()[0].get_text()
    for part in ("GQA", f"{first['mean']:.3f}", f"{first['std']:.3f}", "90 images"):
        assert part in text


def test_a_benchmark_without_scores_is_an_error(information):
    own = information[information["benchmark"] == GQA.name]
    with pytest.raises(ValueError, match=SQA.name):
        histogram(own, (GQA, SQA), FEW)


def test_files_are_the_same_each_time(information, tmp_path):
    for folder in ("one", "other"):
        paths = [tmp_path / folder / f"information.{s}" for s in ("pdf", "svg", "png", "csv")]
        write_information(information, (GQA, SQA), FEW, paths)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "other" / path.name).read_bytes()
