"""The figure of lines: every value drawn once, one color per name, the same bytes each time."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from builders.synthetic_scores import BENCHMARKS, GQA, SQA, ablation_of, grouping, scores_of

from prunesid.study.analysis.comparison import compare
from prunesid.study.config.study import Bootstrap
from prunesid.study.report import theme
from prunesid.study.report.figures import Subject, write_figure
from prunesid.study.report.figures.lines import Scale, draw, points
from prunesid.study.report.panels import Axis, note_of

FEW = Bootstrap(resamples=200)


def subject_of(ablation, benchmarks=BENCHMARKS, **skill):
    scores = scores_of(ablation.arms, benchmarks, images=30, **skill)
    return Subject(compare(scores, ablation, benchmarks, FEW), ablation, benchmarks, FEW)


@pytest.fixture(scope="module")
def subject():
    return subject_of(grouping())


def test_the_data_holds_every_point_of_every_panel(subject):
    data = points(subject)
    assert list(dict.fromkeys(data["panel"])) == [b.name for b in BENCHMARKS] + ["average"]
    drawn = data[data["hue"] != "vanilla"]
    assert len(drawn) == 5 * 3 * 3
    assert not drawn.duplicated(["panel", "x", "hue"]).any()
    assert len(data[data["hue"] == "vanilla"]) == 4


def test_the_sample_says_what_is_shown(subject):
    clips = [replace(benchmark, shows="clips") for benchmark in BENCHMARKS]
    assert subject.sample.endswith("images)")
    assert replace(subject, benchmarks=clips).sample.endswith("clips)")
    mixed = replace(subject, benchmarks=[*BENCHMARKS[:1], *clips[1:]])
    assert mixed.sample.endswith("images and clips)")


def test_a_panel_per_benchmark_with_a_line_per_row(subject):
    data = points(subject)
    drawn = draw(data, subject)
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


def marks(ax, face):
    """Heights of the marks of that face in a panel."""
    return sorted(
        float(y)
        for line in ax.lines
        if line.get_marker() not in ("None", "", None) and line.get_markerfacecolor() == face
        for y in line.get_ydata()
    )


def test_hollow_marks_are_what_the_test_leaves_open(subject):
    data = points(subject)
    ax = draw(data, subject).axes[0]
    own = data[(data["panel"] == GQA.name) & (data["hue"] != "vanilla")]
    open_ = own[own["p_holm"] >= 0.05]
    assert 0 < len(open_) < len(own)
    assert np.allclose(marks(ax, "white"), sorted(open_["value"]))


def test_the_small_print_explains_bars_marks_and_power(subject):
    text = note_of(draw(points(subject), subject))
    for words in ("95 % intervals", "3 seeds", "Holm", "power of 80 %"):
        assert words in text


def test_colors_belong_to_names():
    one, other = theme.colors(["random", "kmeans", "psca"]), theme.colors(["psca", "another"])
    assert one["psca"] == other["psca"] == theme.COLORS["prunesid"]
    assert len(set(one.values())) == 3
    assert other["another"] != other["psca"]
    numbers = theme.colors(["64", "128", "32"])
    assert len(set(numbers.values())) == 3
    assert theme.colors(["32", "64", "128"]) == numbers
    rows = theme.colors(["method=grid,budget=64", "preset=matched", "preset=matched,num_groups=8"])
    assert rows["method=grid,budget=64"] == theme.COLORS["grid"]
    assert rows["preset=matched"] == theme.COLORS["matched"]
    assert len(set(rows.values())) == 3
    many = theme.colors([f"name{i}" for i in range(12)])
    assert len(many) == 12


def test_the_same_numbers_give_the_same_bytes(subject, tmp_path):
    for folder in ("one", "other"):
        paths = [tmp_path / folder / f"figure.{s}" for s in ("pdf", "svg", "png", "csv")]
        write_figure(subject, paths)
    for path in (tmp_path / "one").iterdir():
        content = path.read_bytes()
        assert content == (tmp_path / "other" / path.name).read_bytes()
        assert b"Matplotlib v" not in content
        assert b"CreationDate" not in content
    assert len(pd.read_csv(tmp_path / "one" / "figure.csv")) == 5 * 9 + 4


def test_axes_that_neither_x_nor_color_shows_are_facets():
    ablation = ablation_of(
        vary={"num_groups": [4, 8], "grouping": ["psca", "random"]},
        across={"budget": [64, 128]},
        seeds=1,
    )
    assert ablation.figure.hue == "num_groups" and ablation.figure.facets == ("grouping",)
    subject = subject_of(ablation, (GQA, SQA))
    data = points(subject)
    drawn = data[data["hue"] != "vanilla"]
    assert len(drawn) == 3 * 2 * 2 * 2
    assert not drawn.duplicated(["panel", "facet", "x", "hue"]).any()
    axes = draw(data, subject).axes
    assert [ax.get_title(loc="left") for ax in axes] == ["GQA", "SQA", "Average", "", "", ""]
    assert [ax.get_ylabel().split("\n")[0] for ax in axes[::3]] == [
        "grouping psca",
        "grouping random",
    ]
    for ax, facet in zip(axes[::3], ("psca", "random"), strict=True):
        own = drawn[(drawn["panel"] == GQA.name) & (drawn["facet"] == facet)]
        for bars, value in zip(ax.containers, ("4", "8"), strict=True):
            assert np.allclose(bars.lines[0].get_ydata(), own.loc[own["hue"] == value, "value"])


def test_words_along_the_axis_are_points():
    ablation = ablation_of(vary=[{"preset": "paper"}, {"score": "cls_attention"}])
    subject = subject_of(ablation, (GQA, SQA), skill=lambda arm: 0.8)
    drawn = draw(points(subject), subject)
    ax = drawn.axes[0]
    assert [text.get_text() for text in ax.get_xticklabels()] == ["paper", "cls_attention"]
    assert ax.containers[0].lines[0].get_linestyle() == "None"


def test_a_log_axis_keeps_its_ticks():
    ablation = ablation_of(vary={"budget": [16, 64, 256]}, figure={"x": "budget", "scale": "log"})
    subject = subject_of(ablation, (GQA,))
    ax = draw(points(subject), subject).axes[0]
    assert ax.get_xscale() == "log"
    assert [text.get_text() for text in ax.get_xticklabels()] == ["16", "64", "256"]


def test_labels_that_would_run_into_one_another_are_left_out():
    budgets = [16, 32, 64, 96, 100, 104, 192, 576]
    ablation = ablation_of(vary={"budget": budgets}, figure={"x": "budget", "scale": "log"})
    subject = subject_of(ablation, (GQA,))
    ax = draw(points(subject), subject).axes[0]
    shown = [text.get_text() for text in ax.get_xticklabels()]
    assert shown[0] == "16" and shown[-1] == "576"
    assert shown[3:6] == ["96", "", ""]
    assert len(ax.get_xticks()) == len(budgets)


def test_nothing_process_wide_changes(subject):
    import matplotlib

    before = dict(matplotlib.rcParams)
    draw(points(subject), subject)
    assert dict(matplotlib.rcParams) == before


def test_a_pdf_has_the_letters_of_a_paper(subject, tmp_path):
    drawn = draw(points(subject), subject)
    for name in ("figure.pdf", "again.svg"):
        theme.save(drawn, tmp_path / name)
    content = (tmp_path / "figure.pdf").read_bytes()
    assert b"STIXGeneral" in content and b"DejaVu" not in content


def test_other_formats_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"\.pdf, \.svg, \.png"):
        theme.save(theme.figure(1, 1), tmp_path / "figure.gif")


@pytest.mark.parametrize("scale", ["linear", "log"])
def test_a_single_value_stands_in_the_middle_with_its_hues_close_by(scale):
    chosen = Scale(Axis("budget", ("64",), ("64 tokens",)), scale)
    with theme.style():
        ax = theme.figure(3, 2).subplots()
        chosen.apply(ax)
    places = [chosen.at(pd.Series(["64"]), shift)[0] for shift in (-0.05, 0.0, 0.05)]
    points = ax.transAxes.inverted().transform(ax.transData.transform([(p, 0) for p in places]))
    assert points[:, 0] == pytest.approx([0.475, 0.5, 0.525], abs=0.003)
