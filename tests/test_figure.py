"""The figure: every value drawn once, one color per name, the same bytes each time."""

import numpy as np
import pandas as pd
import pytest
from synthetic_scores import BENCHMARKS, GQA, SQA, ablation_of, grouping, scores_of

from prunesid.render import theme
from prunesid.render.figure import draw, figure_data, write_figure
from prunesid.study.comparison import compare
from prunesid.study.config import Bootstrap

FEW = Bootstrap(resamples=200)


@pytest.fixture(scope="module")
def comparison():
    return compare(scores_of(grouping().arms, images=30), grouping(), BENCHMARKS, FEW)


def test_the_data_holds_every_point_of_every_panel(comparison):
    data = figure_data(comparison, grouping(), BENCHMARKS)
    assert list(dict.fromkeys(data["panel"])) == [b.name for b in BENCHMARKS] + ["average"]
    drawn = data[data["hue"] != "vanilla"]
    assert len(drawn) == 5 * 3 * 3
    assert not drawn.duplicated(["panel", "x", "hue"]).any()
    assert len(data[data["hue"] == "vanilla"]) == 4


def test_a_panel_per_benchmark_with_a_line_per_row(comparison):
    data = figure_data(comparison, grouping(), BENCHMARKS)
    drawn = draw(data, grouping(), BENCHMARKS)
    axes = [ax for ax in drawn.axes if ax.axison]
    assert [ax.get_title(loc="left") for ax in axes] == ["GQA", "MME", "POPE", "SQA", "Average"]
    for ax in axes:
        assert [text.get_text() for text in ax.get_xticklabels()] == ["64", "128", "192"]
    bars = axes[0].containers
    assert [bar.get_label() for bar in bars] == ["random", "k-means", "PSCA (PruneSID)"]
    psca = data[(data["panel"] == GQA.name) & (data["hue"] == "psca")]
    assert np.allclose(bars[2].lines[0].get_ydata(), psca["value"])
    segments = bars[2].lines[2][0].get_segments()
    assert np.allclose([s[:, 1] for s in segments], psca[["ci_low", "ci_high"]])


def test_colors_belong_to_names():
    one, other = theme.colors(["random", "kmeans", "psca"]), theme.colors(["psca", "another"])
    assert one["psca"] == other["psca"] == theme.COLORS["prunesid"]
    assert len(set(one.values())) == 3
    assert other["another"] != other["psca"]
    numbers = theme.colors(["64", "128", "32"])
    assert len(set(numbers.values())) == 3
    assert theme.colors(["32", "64", "128"]) == numbers
    many = theme.colors([f"name{i}" for i in range(12)])
    assert len(many) == 12


def test_the_same_numbers_give_the_same_bytes(comparison, tmp_path):
    for folder in ("one", "other"):
        paths = [tmp_path / folder / f"figure.{s}" for s in ("pdf", "svg", "png", "csv")]
        write_figure(comparison, grouping(), BENCHMARKS, paths)
    for path in (tmp_path / "one").iterdir():
        content = path.read_bytes()
        assert content == (tmp_path / "other" / path.name).read_bytes()
        assert b"Matplotlib v" not in content
        assert b"CreationDate" not in content
    assert len(pd.read_csv(tmp_path / "one" / "figure.csv")) == 5 * 9 + 4


def test_words_along_the_axis_are_points(tmp_path):
    ablation = ablation_of(vary=[{"preset": "paper"}, {"score": "cls_attention"}])
    scores = scores_of(ablation.arms, (GQA, SQA), images=30, skill=lambda arm: 0.8)
    comparison = compare(scores, ablation, (GQA, SQA), FEW)
    drawn = draw(figure_data(comparison, ablation, (GQA, SQA)), ablation, (GQA, SQA))
    ax = drawn.axes[0]
    assert [text.get_text() for text in ax.get_xticklabels()] == ["paper", "cls_attention"]
    assert ax.containers[0].lines[0].get_linestyle() == "None"


def test_a_log_axis_keeps_its_ticks():
    ablation = ablation_of(vary={"budget": [16, 64, 256]}, figure={"x": "budget", "scale": "log"})
    scores = scores_of(ablation.arms, (GQA,), images=30)
    comparison = compare(scores, ablation, (GQA,), FEW)
    ax = draw(figure_data(comparison, ablation, (GQA,)), ablation, (GQA,)).axes[0]
    assert ax.get_xscale() == "log"
    assert [text.get_text() for text in ax.get_xticklabels()] == ["16", "64", "256"]


def test_nothing_process_wide_changes(comparison):
    import matplotlib

    before = dict(matplotlib.rcParams)
    draw(figure_data(comparison, grouping(), BENCHMARKS), grouping(), BENCHMARKS)
    assert dict(matplotlib.rcParams) == before


def test_other_formats_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"\.pdf, \.svg, \.png"):
        theme.save(theme.figure(1, 1), tmp_path / "figure.gif")
