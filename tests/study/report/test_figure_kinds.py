"""Kinds of figures: chosen by name, and what each of the special ones shows."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from builders.synthetic_scores import (
    BENCHMARKS,
    GQA,
    SQA,
    ablation_of,
    grouping,
    information_of,
    scores_of,
)

from prunesid.core.registry import listed
from prunesid.study.analysis.comparison import AVERAGE, compare_samples, sample
from prunesid.study.analysis.pairs import compare_pairs
from prunesid.study.analysis.strata import by_stratum
from prunesid.study.config.ablation import FIGURE_KINDS
from prunesid.study.config.documents import ConfigError
from prunesid.study.config.study import Bootstrap
from prunesid.study.report import figures, theme
from prunesid.study.report.figures import (
    FIGURES,
    Subject,
    dots,
    forest,
    gain,
    layers,
    losses,
    pareto,
    ranking,
    wins,
    write_figure,
)
from prunesid.study.report.panels import note_of

FEW = Bootstrap(resamples=200)


def subject_of(ablation, benchmarks=BENCHMARKS, information=None, skill=lambda arm: 0.8):
    scores = scores_of(ablation.arms, benchmarks, images=30, skill=skill)
    samples = sample(scores, ablation, benchmarks, FEW)
    comparison, pairs = compare_samples(samples), compare_pairs(samples)
    lost = None
    if information is not None and "image_id" in information:
        lost = by_stratum(scores, ablation, benchmarks, information, FEW)
    return Subject(comparison, ablation, benchmarks, FEW, information, pairs, lost)


def test_kinds_are_named_like_their_files_and_known_without_an_import():
    files = {path.stem for path in Path(figures.__file__).parent.glob("[!_]*.py")}
    assert set(FIGURES.names()) == files == set(listed(FIGURE_KINDS, "prunesid.figures"))


def test_a_wrong_kind_names_the_choices():
    with pytest.raises(ConfigError, match=r"figure\.kind.*'forrest'.*Did you mean 'forest'.*lines"):
        ablation_of(vary={"budget": [32, 64]}, figure={"kind": "forrest"})
    with pytest.raises(ConfigError, match=r"figure\.also.*'rankings'.*Did you mean 'ranking'"):
        ablation_of(vary={"budget": [32, 64]}, figure={"also": ["rankings"]})


@pytest.fixture(scope="module")
def layered():
    ablation = ablation_of(
        vary={"layer": [0, 4, 10]},
        across={"budget": [64, 128]},
        reference={"layer": 10},
        figure={"kind": "layers", "x": "layer", "hue": "budget"},
    )
    return subject_of(ablation, (GQA, SQA))


def test_layers_draw_the_reference_as_a_line_of_each_color(layered):
    data = layers.points(layered)
    assert set(data.loc[data["reference"], "x"]) == {"10"}
    ax = layers.draw(data, layered).axes[0]
    dotted = [line for line in ax.lines if line.get_linestyle() == ":" or not_dashed(line)]
    reference = data[(data["panel"] == GQA.name) & data["reference"]]
    assert np.allclose(sorted(line.get_ydata()[0] for line in dotted), sorted(reference["value"]))
    assert [text.get_text() for text in ax.get_xticklabels()] == ["0", "4", "10"]


def not_dashed(line):
    pattern = line._unscaled_dash_pattern[1]
    return pattern is not None and tuple(pattern) == layers.DOTTED[1]


def test_a_reference_without_a_number_has_no_place_on_the_axis():
    ablation = ablation_of(
        vary=[{"layer": None, "label": "usual block"}, {"layer": 0}, {"layer": 4}],
        figure={"kind": "layers", "x": "layer"},
    )
    subject = subject_of(ablation, (GQA,))
    data = layers.points(subject)
    assert list(data.loc[data["reference"], "x"]) == ["", ""]
    drawn = layers.draw(data, subject)
    assert [text.get_text() for text in drawn.axes[0].get_xticklabels()] == ["0", "4"]
    assert "Dotted: the reference, usual block." in note_of(drawn)


def test_layers_need_numbers_along_the_axis():
    with pytest.raises(ValueError, match=r"needs numbers along x.* 'grouping', with random"):
        ablation_of(
            vary={"grouping": ["psca", "random"]}, figure={"kind": "layers", "x": "grouping"}
        )


@pytest.fixture(scope="module")
def switched():
    ablation = ablation_of(
        vary=[{"preset": "paper"}, {"score": "cls_attention"}, {"order": "groups"}],
        across={"budget": [64, 128]},
        figure={"kind": "forest"},
    )
    skill = {"cls_attention": 0.5}
    return subject_of(ablation, skill=lambda arm: skill.get(str(arm.params.get("score")), 0.85))


def test_a_forest_has_a_line_per_row_but_the_reference(switched):
    data = forest.points(switched)
    assert set(data["row"]) == {"score=cls_attention", "order=groups"}
    assert len(data) == 2 * 2 * 5
    drawn = forest.draw(data, switched)
    axes = [ax for ax in drawn.axes if ax.axison]
    assert [ax.get_title(loc="left") for ax in axes] == ["GQA", "MME", "POPE", "SQA", "Average"]
    assert [t.get_text() for t in axes[0].get_yticklabels()] == ["cls_attention", "groups"]
    own = data[(data["panel"] == GQA.name) & (data["column"] == "64")]
    assert np.allclose(axes[0].containers[0].lines[0].get_xdata(), own["diff"])
    segments = axes[0].containers[0].lines[2][0].get_segments()
    assert np.allclose([s[:, 0] for s in segments], own[["diff_low", "diff_high"]])


def test_the_band_of_a_forest_is_what_cannot_be_detected(switched):
    data = forest.points(switched)
    ax = forest.draw(data, switched).axes[0]
    size = data.loc[data["panel"] == GQA.name, "detectable"].max()
    band = ax.patches[0].get_extents().transformed(ax.transData.inverted())
    assert np.allclose([band.x0, band.x1], [-size, size])


def scores_of_phi(spread):
    random = np.random.default_rng(0)
    parts = [
        pd.DataFrame({"benchmark": b.name, "phi": 0.8 + s * random.standard_normal(200)})
        for b, s in zip(BENCHMARKS, spread, strict=True)
    ]
    return pd.concat(parts, ignore_index=True)


@pytest.fixture(scope="module")
def dynamic():
    ablation = ablation_of(
        vary={"num_groups": [16, 8, 4]}, across={"budget": [64, 128]}, figure={"kind": "gain"}
    )
    return subject_of(ablation, information=scores_of_phi((0.02, 0.04, 0.06, 0.08)))


def test_gains_are_shares_of_the_all_token_value(dynamic):
    data = gain.points(dynamic)
    assert len(data) == 2 * 2 * 4
    table = dynamic.comparison.set_index(["row", "column", "benchmark"])
    line = table.loc["num_groups=8", "budget=128", GQA.name]
    whole = table.loc["vanilla", "all", GQA.name]["value"]
    own = data[(data["row"] == "num_groups=8") & (data["column"] == "budget=128")]
    assert own["gain"].iloc[0] == pytest.approx(100 * line["diff"] / whole)
    assert own["phi_std"].is_monotonic_increasing
    assert own["r_value"].nunique() == 1


def test_a_gain_that_follows_the_spread_has_rank_correlation_one(dynamic):
    table = dynamic.comparison.copy()
    place = {b.name: rank for rank, b in enumerate(BENCHMARKS)}
    whole = table[table["row"] == "vanilla"].set_index("benchmark")["value"]
    own = (table["row"] == "num_groups=8") & table["benchmark"].isin(place)
    steps = table.loc[own, "benchmark"].map(place) * table.loc[own, "benchmark"].map(whole) / 100
    for name, shift in (("diff", 0.0), ("diff_low", -0.001), ("diff_high", 0.001)):
        table.loc[own, name] = steps + shift
    data = gain.points(replace(dynamic, comparison=table))
    followed = data[data["row"] == "num_groups=8"]
    assert np.allclose(followed["r_value"], 1)
    assert (followed["r_low"] > 0.5).all()
    assert np.allclose(followed["r_p"], 1 / 12)
    drawn = gain.draw(data, dynamic)
    text = drawn.axes[0].get_legend().get_texts()[0].get_text()
    assert re.match(r"64 tokens: r = \+1\.00 \[.+\], p = 0\.08", text)
    assert "no r has a p below 0.083" in note_of(drawn)


def test_gains_of_nothing_have_an_axis_that_shows_nothing(dynamic):
    data = gain.points(dynamic).assign(gain=1e-17, gain_low=0.0, gain_high=1e-17)
    low, high = gain.draw(data, dynamic).axes[0].get_ylim()
    assert low <= -gain.LEAST_GAIN and high >= gain.LEAST_GAIN


def test_a_gain_needs_the_information_scores_of_all_benchmarks(dynamic):
    with pytest.raises(ValueError, match="needs the information scores"):
        gain.points(replace(dynamic, information=None))
    some = dynamic.information[dynamic.information["benchmark"] != SQA.name]
    with pytest.raises(ValueError, match=SQA.name):
        gain.points(replace(dynamic, information=some))


@pytest.mark.parametrize("name", ["layered", "switched", "dynamic"])
def test_every_kind_writes_the_same_bytes_twice(name, request, tmp_path):
    subject = request.getfixturevalue(name)
    for folder in ("one", "other"):
        write_figure(subject, [tmp_path / folder / f"figure.{s}" for s in ("svg", "csv")])
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "other" / path.name).read_bytes()


def test_the_default_kind_is_lines():
    assert grouping().figure.kind == "lines"


SKILL = {"grid": 0.9, "random": 0.7, "prunesid": 0.8}


@pytest.fixture(scope="module")
def methods():
    ablation = ablation_of(
        vary=[{"method": name} for name in ("random", "grid", "prunesid")],
        seeds=1,
        across={"budget": [64, 128]},
        reference={"method": "prunesid"},
        figure={"kind": "dots", "also": ["ranking", "wins", "losses", "pareto"]},
    )
    skill = {"vanilla": 0.95} | SKILL
    return subject_of(ablation, information=information_of(), skill=lambda arm: skill[arm.method])


def test_dots_show_every_row_from_above_by_the_average(methods):
    data = dots.points(methods)
    assert [row.label for row in dots.ranking(data, methods.ablation)] == [
        "grid",
        "prunesid",
        "random",
    ]
    drawn = dots.draw(data, methods)
    axes = [ax for ax in drawn.axes if ax.axison]
    assert [t.get_text() for t in axes[0].get_yticklabels()] == ["grid", "prunesid", "random"]
    own = data[(data["panel"] == GQA.name) & (data["column"] == "64")].set_index("row")["value"]
    order = [f"method={name}" for name in ("grid", "prunesid", "random")]
    assert np.allclose(axes[0].containers[0].lines[0].get_xdata(), own[order])


def test_a_ranking_says_who_wins_under_the_first_column_and_whether_it_is_sure(methods):
    data = ranking.points(methods)
    assert list(data["row"]) == [f"method={name}" for name in ("grid", "prunesid", "random")]
    line = methods.comparison.set_index(["row", "column", "benchmark"])
    for row in data.itertuples():
        assert row.value == line.loc[(row.row, "budget=64", AVERAGE), "value"]
    pairs = methods.pairs.set_index(["column", "row", "other", "benchmark"])
    for row in data.iloc[1:].itertuples():
        pair = pairs.loc["budget=64", row.row, "method=grid", AVERAGE]
        assert row.diff == pair["diff"] < 0
        assert row.sure == (pair["p_holm"] < 0.05)
    assert data["sure"].tolist()[0] is False and data["sure"].any()
    drawn = ranking.draw(data, methods)
    ax = drawn.axes[0]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["grid", "prunesid", "random"]
    assert [t.get_fontweight() for t in ax.get_yticklabels()] == ["normal", "bold", "normal"]
    hollow = [line for line in ax.lines if line.get_markerfacecolor() == "white"]
    assert len(hollow) == 2 - data["sure"].sum()
    with pytest.raises(ValueError, match="every pair"):
        ranking.points(replace(methods, pairs=None))


def test_a_ranking_names_the_rows_that_are_not_run_there():
    ablation = ablation_of(
        vary=[{"method": name} for name in ("prunesid", "grid", "random")],
        seeds=1,
        across={"budget": [64, 128]},
        figure={"kind": "ranking"},
        **{"except": [{"method": ["random"], "budget": [64]}]},
    )
    subject = subject_of(ablation, skill=lambda arm: 0.8)
    data = ranking.points(subject)
    assert set(data["row"]) == {"method=prunesid", "method=grid"}
    assert "Not run here: random." in note_of(ranking.draw(data, subject))


def test_wins_are_the_differences_of_every_pair(methods):
    data = wins.points(methods)
    assert len(data) == 2 * 3 * 2
    line = methods.comparison.set_index(["row", "column", "benchmark"])
    for pair in data.itertuples():
        mine, other = (line.loc[(r, pair.column, AVERAGE), "value"] for r in (pair.row, pair.other))
        assert pair.diff == pytest.approx(mine - other)
    # The pairs agree with the comparison of each row and its reference.
    against = data[data["other"] == "method=prunesid"].set_index(["row", "column"])
    for (row, column), pair in against.iterrows():
        whole = line.loc[(row, column, AVERAGE)]
        assert np.allclose(
            [pair["diff_low"], pair["diff_high"]], [whole["diff_low"], whole["diff_high"]]
        )
    table = wins.draw(data, methods).axes[0].images[0].get_array()
    assert np.allclose(table.filled(0), -table.filled(0).T)
    with pytest.raises(ValueError, match="every pair"):
        wins.points(replace(methods, pairs=None))


def test_losses_stand_the_losses_under_the_first_column(methods):
    data = losses.points(methods)
    assert list(dict.fromkeys(data["row"])) == [
        f"method={name}" for name in ("grid", "prunesid", "random")
    ]
    drawn = losses.draw(data, methods)
    by_family, by_phi = (ax.images[0].get_array() for ax in drawn.axes[:2])
    assert by_phi.shape == (3, 3 * len(BENCHMARKS))
    families = data[(data["kind"] == "family") & (data["row"] == "method=grid")]
    assert np.allclose(by_family[0], families["diff"])
    with pytest.raises(ValueError, match="by stratum"):
        losses.points(replace(methods, strata=None))


COSTS = {"random": 1e9, "grid": 2e9, "prunesid": 3e9, "vanilla": 9e9}


@pytest.fixture(scope="module")
def costly(methods):
    lines = [
        {"arm": arm.name, "benchmark": b.name, "encoder_macs": 5e8, "selection_macs": 0.0,
         "llm_macs": 5e8, "total_macs": (COSTS[arm.method] + 1e7 * (arm.budget or 0)) * (1 + place)}
        for arm in methods.ablation.arms for place, b in enumerate(BENCHMARKS)
    ]  # fmt: skip
    return replace(methods, facts=pd.DataFrame(lines))


def test_a_pareto_plot_has_a_point_per_row_and_column_and_one_of_all_tokens(costly):
    data = pareto.points(costly).set_index(["row", "column"])
    assert len(data) == 3 * 2 + 1
    assert data.loc[("method=grid", "budget=64"), "macs"] == pytest.approx(2.64e9 * 2.5)
    line = costly.comparison.set_index(["row", "column", "benchmark"])
    for key in (("method=grid", "budget=64"), ("method=random", "budget=128")):
        assert data.loc[key, "value"] == line.loc[(*key, AVERAGE), "value"]
    assert data.loc[("vanilla", "all"), ["value", "front"]].tolist() == [100, True]
    # PruneSID costs more than the grid and is worse: not on the front.
    assert not data.loc["method=prunesid", "front"].any()
    with pytest.raises(ValueError, match="what the arms cost"):
        pareto.points(replace(costly, facts=None))


def test_a_cost_that_is_a_lower_bound_is_hollow_and_not_on_the_front(costly):
    arms = costly.facts.copy()
    arms.loc[arms["arm"].str.startswith("method-grid"), "selection_macs"] = np.nan
    subject = replace(costly, facts=arms)
    data = pareto.points(subject)
    own = data["row"] == "method=grid"
    assert data.loc[own, "bound"].all() and not data.loc[own, "front"].any()
    assert not data.loc[~own, "bound"].any()
    assert "Hollow" in note_of(pareto.draw(data, subject))
    assert "Hollow" not in note_of(pareto.draw(pareto.points(costly), costly))


def test_each_row_of_a_crowd_has_a_panel_that_enlarges_it(costly):
    ablation = ablation_of(
        vary={"num_groups": list(range(8, 20))}, across={"budget": [64, 128]}, seeds=1
    )
    data = pareto.points(costly).iloc[[0] * (1 + 24)].reset_index(drop=True)
    rows = [row.key for row in ablation.rows for _ in ablation.columns]
    columns = [column.key for _ in ablation.rows for column in ablation.columns]
    data["row"], data["column"] = ["vanilla", *rows], ["all", *columns]
    data["macs"] = [9e9, *np.linspace(2.9e9, 3.1e9, 24)]
    data["value"] = [100, *np.linspace(80, 95, 24)]
    data.loc[1:2, ["macs", "value"]] = [[5e8, 60], [6e8, 65]]
    assert pareto.crowd(data) is None  # two of the points are apart
    data = pd.concat([data, data.iloc[3:5].assign(value=94)], ignore_index=True)
    (left, right), (bottom, top) = pareto.crowd(data)
    assert 6e8 < left < 2.9e9 and 3.1e9 < right < 9e9 and 80 < bottom < 85 and top > 95
    data["front"] = pareto.on_front(data["macs"].to_numpy(), data["value"].to_numpy())
    whole, *facets = pareto.draw(data, replace(costly, ablation=ablation)).axes
    facets = [ax for ax in facets if ax.axison]
    titles = [ax.get_title(loc="left") for ax in facets]
    # Outside the crowd or on the front: by name in the first panel.
    named = {text.get_text() for text in whole.texts}
    labels = {row.key: row.label for row in ablation.rows}
    fronts = {labels.get(key, "all tokens") for key in data.loc[data["front"], "row"]}
    assert {"num groups 8", "num groups 19"} <= named and fronts <= named
    assert named | set(titles) == {"all tokens", *labels.values()}
    assert "num groups 8" not in titles and len(titles) == len(set(titles)) > 8
    for ax in facets:
        assert ax.get_xlim() == pytest.approx((left, right))


def test_the_front_is_what_nothing_beats():
    cost, value = np.array([1.0, 2, 2, 3, 4, 4]), np.array([5.0, 6, 5, 6, 8, 8])
    assert pareto.on_front(cost, value).tolist() == [True, True, False, False, True, True]
    rivals = pd.Series([False, True, True, True, True, True])
    assert pareto.on_front(cost, value, rivals)[2] == False  # noqa: E712
    assert pareto.on_front(cost[:2], value[:2], rivals[:2]).all()


def test_labels_stay_in_order_and_apart():
    wanted = np.array([0.5, 0.9, 0.51, 0.52, 0.95])
    found = pareto.spread(wanted, 0.1)
    assert (np.argsort(found) == np.argsort(wanted)).all()
    assert (np.diff(np.sort(found)) >= 0.1 - 1e-12).all()
    assert found.min() >= 0 and found.max() <= 1 + 1e-12
    free = np.array([0.1, 0.5, 0.9])
    assert np.allclose(pareto.spread(free, 0.1), free)
    many = np.sort(pareto.spread(np.full(20, 0.5), 0.1))
    assert np.allclose(many, np.linspace(0, 1, 20))


def test_names_on_a_pareto_plot_do_not_overlap(costly):
    drawn = pareto.draw(pareto.points(costly), costly)
    drawn.canvas.draw()
    boxes = [t.get_window_extent() for t in drawn.axes[0].texts]
    assert len(boxes) == 4
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert [pareto.tick_text(v) for v in (1.5e9, 2e11)] == ["1.5 G", "200 G"]


@pytest.mark.parametrize("kind", [dots, ranking, wins, losses, pareto])
def test_the_small_print_says_what_was_asked(kind, costly):
    whole = costly.comparison[costly.comparison["row"] == "vanilla"]
    note = note_of(kind.draw(kind.points(costly), costly))
    asked = f"GQA, MME, POPE, SQA ({whole['questions'].sum():,} questions on 120 images)"
    assert asked in note
    assert "95 % interval" in note


def test_near_benchmarks_have_one_label():
    together = gain.label_together([0.0, 0.1, 0.15, 0.5], ["a", "b", "c", "d"], near=0.08)
    assert together == ["a", "b, c", "", "d"]
    assert gain.label_together([0.0, 0.1, 0.15], ["a", "b", "c"], near=0.2) == ["a, b, c", "", ""]


def test_a_dollar_in_a_label_is_no_formula(tmp_path):
    """Of a formula that it cannot read, matplotlib would raise."""
    labels = {"score": {"abs_v": "$x^{$", "cls_attention": "$\\frac$"}}
    vary, across = {"score": ["abs_v", "cls_attention"]}, {"budget": [64, 128]}
    ablation = ablation_of(vary=vary, across=across, labels=labels, figure={"kind": "forest"})
    titled = tuple(replace(each, title=f"{each.title} $_$") for each in BENCHMARKS)
    subject = subject_of(ablation, titled)
    theme.save(forest.draw(forest.points(subject), subject), tmp_path / "figure.svg")
    assert (tmp_path / "figure.svg").stat().st_size


@pytest.mark.parametrize("kind", ["lines", "dots", "forest", "ranking", "wins", "losses"])
def test_a_row_that_is_the_default_is_drawn_like_any_other(kind, tmp_path):
    ablation = ablation_of(
        vary=[{"label": "PruneSID"}, {"method": "grid"}, {"method": "random"}],
        across={"budget": [64, 128]},
        reference={},
        figure={"kind": kind, "x": "budget", "hue": "row"} if kind == "lines" else {"kind": kind},
    )
    subject = subject_of(ablation, information=information_of())
    paths = [tmp_path / f"figure.{suffix}" for suffix in ("svg", "csv")]
    write_figure(subject, paths, "figure")
    data = pd.read_csv(paths[1], keep_default_na=False)
    keys = [name for name in ("row", "hue", "other") if name in data]
    shown = set(data[keys].to_numpy().ravel()) - {"vanilla"}
    assert {"method=grid", "method=random"} <= shown or {"grid", "random"} <= shown
    assert kind == "forest" or "" in shown or "PruneSID" in shown
