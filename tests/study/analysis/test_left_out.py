"""An ablation with cells left out: every table, figure and page does without them and says so."""

import pytest
from builders.synthetic_scores import BENCHMARKS, ablation_of, facts_of, information_of, scores_of

from prunesid.study.analysis.comparison import AVERAGE, OVERALL, compare_samples, sample
from prunesid.study.analysis.pairs import compare_pairs
from prunesid.study.analysis.strata import by_stratum
from prunesid.study.config.study import Bootstrap
from prunesid.study.report.arm_facts import facts_table
from prunesid.study.report.figures import FIGURES, Subject, dots
from prunesid.study.report.method_page import build_page
from prunesid.study.report.table import build_table

FEW = Bootstrap(resamples=200)
SKILL = {"grid": 0.5, "fastv": 0.57, "tome": 0.6, "prunesid": 0.65, "vanilla": 0.95}
LATE = "method=fastv"


def skill(arm):
    return SKILL[arm.method] + (0.001 if arm.is_vanilla else arm.budget / 800)


@pytest.fixture(scope="module")
def subject():
    ablation = ablation_of(
        vary=[{"method": name} for name in ("prunesid", "grid", "tome", "fastv")],
        across={"budget": [64, 192]},
        seeds=1,
        figure={"kind": "dots", "also": ["ranking", "wins", "losses", "pareto", "forest", "lines"]},
        **{"except": [{"method": ["fastv"], "budget": [64]}]},
    )
    scores = scores_of(ablation.arms, images=30, skill=skill)
    information = information_of()
    samples = sample(scores, ablation, BENCHMARKS, FEW)
    return Subject(
        compare_samples(samples), ablation, BENCHMARKS, FEW, information=information,
        pairs=compare_pairs(samples), facts=facts_of(ablation.arms),
        strata=by_stratum(scores, ablation, BENCHMARKS, information, FEW),
    )  # fmt: skip


def test_a_cell_that_is_not_run_is_nowhere_compared(subject):
    lines = subject.comparison[subject.comparison["row"] == LATE]
    assert set(lines["column"]) == {"budget=192"}
    whole = subject.comparison[subject.comparison["column"] == OVERALL]
    assert set(whole["row"]) == {"method=prunesid", "method=grid", "method=tome"}
    pairs = subject.pairs
    assert set(pairs.loc[pairs["row"] == LATE, "column"]) == {"budget=192"}


def test_the_table_has_a_dash_and_explains_it(subject):
    table = build_table(subject)
    ours, differences = table.blocks[:2]
    for block in (ours, differences):
        (late,) = (row for row in block.rows if row.label == "fastv")
        half = len(BENCHMARKS)
        assert [cell.value for cell in late.cells[:half]] == ["–"] * half
        assert "–" not in [cell.value for cell in late.cells[half : 2 * half]]
    assert any(text.startswith("–: left out") for text in table.caption)


def test_the_facts_say_where_each_row_acts(subject):
    table = facts_table(subject.facts, None, subject.ablation)
    assert table.columns[:2] == ("Acts", "Tokens")
    fewer, more = table.blocks
    assert [row.label for row in fewer.rows] == ["prunesid", "grid", "tome"]
    acts = {row.label: row.cells[0].value for row in more.rows}
    assert acts == {"prunesid": "early", "grid": "early", "tome": "in the encoder", "fastv": "late"}


def test_rows_are_ranked_under_the_columns_that_they_have(subject):
    """The late row is run at the larger budget alone, where every row is better."""
    data = dots.points(subject)
    shown = [row.label for row in dots.ranking(data, subject.ablation)]
    assert shown == ["prunesid", "tome", "fastv", "grid"]
    averages = data[data["panel"] == AVERAGE].groupby("row")["value"].mean()
    assert averages[LATE] > averages["method=tome"]


@pytest.mark.parametrize("kind", ["dots", "ranking", "wins", "losses", "pareto", "forest", "lines"])
def test_every_figure_is_drawn(kind, subject):
    points = FIGURES[kind].points(subject)
    drawn = FIGURES[kind].draw(points, subject)
    drawn.canvas.draw()
    if kind not in ("losses", "ranking"):  # of the first column alone
        named = points["hue" if kind == "lines" else "row"]
        assert named.str.contains("fastv").any()


def test_the_page_of_the_row_is_about_the_columns_that_it_has(subject):
    page = build_page("fastv", subject)
    own = page.numbers[0].blocks[1]
    assert [row.label for row in own.rows] == ["192 tokens"]
    assert own.rows[0].cells[-1].value == "3 of 4"
    reference = page.numbers[0].blocks[2]
    assert [row.label for row in reference.rows] == ["64 tokens", "192 tokens"]
    assert page.numbers[1].groups[1] == ("fastv", 1)
