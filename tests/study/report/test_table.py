"""The table: the paper's form, ours and the paper's numbers apart, in CSV, Markdown and HTML."""

import csv
import io
import re
from html.parser import HTMLParser

import pandas as pd
import pytest
from builders.synthetic_scores import BENCHMARKS, GQA, ROOT, ablation_of, grouping, scores_of

from prunesid.core.parameters import Param
from prunesid.core.registry import owned_by, withdraw
from prunesid.methods import decoder
from prunesid.study.analysis.comparison import compare
from prunesid.study.config.study import Bootstrap
from prunesid.study.report.figures import Subject
from prunesid.study.report.formats import to_csv, to_html, to_markdown
from prunesid.study.report.paper import load_paper
from prunesid.study.report.table import build_table, write_table

FEW = Bootstrap(resamples=200)


@pytest.fixture(scope="module")
def paper():
    return load_paper(ROOT / "configs" / "paper")


@pytest.fixture(scope="module")
def comparison():
    return compare(scores_of(grouping().arms, images=60), grouping(), BENCHMARKS, FEW)


@pytest.fixture(scope="module")
def table(comparison, paper):
    return build_table(Subject(comparison, grouping(), BENCHMARKS, FEW), paper)


def test_it_has_the_form_of_table_5(table):
    assert table.groups == (
        ("Retain 64 tokens", 4),
        ("Retain 128 tokens", 4),
        ("Retain 192 tokens", 4),
        ("", 1),
    )
    assert table.columns == ("GQA", "MME", "POPE", "SQA") * 3 + ("Avg.",)
    ours, differences, printed, deltas = table.blocks
    assert [r.label for r in ours.rows] == [
        "all 576 tokens",
        "random",
        "k-means",
        "PSCA (PruneSID)",
    ]
    assert [r.label for r in differences.rows] == ["random", "k-means"]
    assert [r.label for r in printed.rows] == [r.label for r in ours.rows]
    assert [r.label for r in deltas.rows] == [r.label for r in differences.rows]
    assert all(len(r.cells) == 13 for block in table.blocks for r in block.rows)


def test_the_papers_cells_are_the_papers(table):
    printed = table.blocks[-2]
    assert printed.kind == "paper"
    assert printed.title == "Paper, table 5: LLaVA-1.5-7B, its own benchmarks"
    cells = {row.label: [cell.value for cell in row.cells] for row in printed.rows}
    assert cells["PSCA (PruneSID)"] == (
        [
            "57.1",
            "1733",
            "83.8",
            "67.8",
            "58.8",
            "1749",
            "86.5",
            "68.3",
            "60.1",
            "1793",
            "86.9",
            "68.5",
            "96.8",
        ]
    )
    assert cells["random"][:4] == ["56.2", "1707", "79.6", "67.5"]
    assert cells["random"][6] == "84.0"
    assert cells["all 576 tokens"][:4] == ["61.9", "1862", "85.9", "69.5"]


def test_the_papers_differences_are_of_its_printed_cells(table):
    deltas = table.blocks[-1]
    assert deltas.kind == "paper_difference"
    random = [cell.value for cell in deltas.rows[0].cells]
    assert random[:4] == ["−0.9", "−26", "−4.2", "−0.3"]
    assert random[-1] == "−2.0"
    assert [cell.value for cell in deltas.rows[1].cells][3] == "0.0"


def test_our_cells_are_the_comparisons(table, comparison):
    line = comparison[
        (comparison["row"] == "grouping=kmeans")
        & (comparison["column"] == "budget=128")
        & (comparison["benchmark"] == GQA.name)
    ].iloc[0]
    cell = table.blocks[0].rows[2].cells[4]
    assert cell.value == f"{line['value']:.1f}"
    assert cell.interval == f"{line['ci_low']:.1f}–{line['ci_high']:.1f}"
    assert cell.spread == f"±{line['spread']:.1f}"
    assert table.blocks[1].rows[1].cells[4].mark == (line["p_holm"] < 0.05)
    best = [row.cells[4].best for row in table.blocks[0].rows]
    assert sum(best) == 1
    assert not best[0]


def test_the_caption_says_what_one_must_know(table):
    text = " ".join(table.caption)
    for words in (
        "95 % interval", "3 seeds", "(sign-flip test)", "no † depends on a seed",
        "as a percentage of the value with all tokens", "Holm",
        "Smallest detectable difference", "1791 in table 1 and 1793 in table 5",
        "compare the order of rows and not the numbers", "480 questions on 60 images",
        "exactly its budget",
    ):  # fmt: skip
        assert words in text, words


def test_unequal_token_counts_are_told(paper):
    scores = scores_of(grouping().arms, images=40)
    scores.loc[(scores["arm"] == "budget-128") & (scores["image_id"] == "img1"), "tokens"] = 100
    comparison = compare(scores, grouping(), BENCHMARKS, FEW)
    text = " ".join(build_table(Subject(comparison, grouping(), BENCHMARKS, FEW), paper).caption)
    assert "PSCA (PruneSID), 128 tokens: 127.3 (100–128)" in text


def test_table_6_has_its_own_form(paper):
    ablation = ablation_of(
        vary={"num_groups": [8, 16]},
        across={"budget": [64, 128]},
        table={"paper_table": 6, "average": "column"},
    )
    comparison = compare(scores_of(ablation.arms, images=40), ablation, BENCHMARKS, FEW)
    table = build_table(Subject(comparison, ablation, BENCHMARKS, FEW), paper)
    assert table.columns == ("GQA", "MME", "POPE", "SQA", "Avg.") * 2
    assert [cell.value for cell in table.blocks[-2].rows[2].cells] == (
        ["57.1", "1733", "83.8", "67.8", "95.1", "58.6", "1692", "86.4", "68.2", "96.1"]
    )
    assert "stops at 60" in " ".join(table.caption)


def test_methods_find_their_rows_in_table_1_and_other_arms_none(paper):
    ablation = ablation_of(
        vary=[{"method": "prunesid"}, {"grouping": "kmeans"}, {"method": "grid"}],
        across={"budget": [64]},
        table={"paper_table": 1},
    )
    comparison = compare(
        scores_of(ablation.arms, images=40, skill=lambda arm: 0.8), ablation, BENCHMARKS, FEW
    )
    table = build_table(Subject(comparison, ablation, BENCHMARKS, FEW), paper)
    printed = table.blocks[-1]
    assert printed.kind == "paper"
    assert [row.label for row in printed.rows] == ["all 576 tokens", "prunesid"]
    assert [cell.value for cell in printed.rows[1].cells][:2] == ["57.1", "1733"]
    text = " ".join(table.caption)
    assert "static PruneSID is at 95.9" in text
    assert "DivPrune" not in text and "PruneSID-Dyn at 192" not in text


def test_the_papers_row_stands_beside_all_arms_that_it_may_be_of(paper):
    ablation = ablation_of(
        vary=[{"preset": "paper"}, {"preset": "release"}, {"preset": "matched"}],
        across={"budget": [64]},
        table={"paper_table": 1},
    )
    scores = scores_of(ablation.arms, images=40, skill=lambda arm: 0.8)
    comparison = compare(scores, ablation, BENCHMARKS, FEW)
    table = build_table(Subject(comparison, ablation, BENCHMARKS, FEW), paper)
    # One printed row twice has no difference to show.
    assert [block.kind for block in table.blocks] == ["ours", "difference", "paper"]
    _, text, code = table.blocks[-1].rows
    assert (text.label, code.label) == ("paper", "release")
    assert text.cells == code.cells
    assert "does not say whether its PruneSID rows" in " ".join(table.caption)


def test_a_budget_that_authors_count_otherwise_is_told(paper):
    choices = Param("mean", str, ("mean", "after"))
    with owned_by("test of budgets"):
        decoder.register("made_up", params={"budget_counts": choices})(
            lambda *_, **__: decoder.Schedule()
        )
    try:
        ablation = ablation_of(
            vary=[
                {"method": "prunesid"},
                {"method": "made_up", "label": "ours"},
                {"method": "made_up", "budget_counts": "after", "label": "theirs"},
            ],
        )
        scores = scores_of(ablation.arms, images=20, skill=lambda arm: 0.8)
        comparison = compare(scores, ablation, BENCHMARKS, FEW)
        text = " ".join(build_table(Subject(comparison, ablation, BENCHMARKS, FEW), paper).caption)
        assert "ours: a budget is the mean, over all layers" in text
        assert "theirs: a budget is the number of tokens that enters each layer after" in text
    finally:
        withdraw("test of budgets")


@pytest.fixture(scope="module")
def dynamic():
    ablation = ablation_of(
        vary={"dynamic": [None, "benchmark", "calibrated"]},
        across={"budget": [64, 192]},
        labels={"dynamic": {"none": "fixed"}},
        table={"paper_table": 1, "average": "column"},
    )
    scores = scores_of(ablation.arms, images=40, skill=lambda arm: 0.8)
    return ablation, compare(scores, ablation, BENCHMARKS, FEW)


def test_table_7_has_deltas_per_benchmark_beside_the_papers(dynamic, paper):
    ablation, comparison = dynamic
    table = build_table(Subject(comparison, ablation, BENCHMARKS, FEW), paper)
    kinds = [block.kind for block in table.blocks]
    assert kinds == ["ours", "difference", "paper", "paper_difference"]
    assert [r.label for r in table.blocks[1].rows] == ["benchmark", "calibrated"]
    assert [r.label for r in table.blocks[2].rows] == ["all 576 tokens", "fixed", "benchmark"]
    deltas = table.blocks[3].rows
    assert [r.label for r in deltas] == ["benchmark"]
    assert [cell.value for cell in deltas[0].cells] == (
        ["+0.1", "+1", "+0.3", "+0.3", "+0.4", "+0.1", "+6", "+0.2", "+0.6", "+0.1"]
    )
    text = " ".join(table.caption)
    assert "Table 7 repeats this comparison" in text
    assert "over eleven benchmarks" in text


def test_dynamic_budgets_stand_beside_the_spread_of_phi(dynamic, comparison):
    ablation, own = dynamic
    phi = pd.DataFrame(
        {
            "benchmark": [b.name for b in BENCHMARKS for _ in range(3)],
            "phi": [x for b in range(4) for x in (0.7, 0.8, 0.8 + 0.01 * b)],
        }
    )
    table = build_table(Subject(own, ablation, BENCHMARKS, FEW, phi))
    block = next(block for block in table.blocks if block.kind == "information")
    mean, std = block.rows
    assert (mean.label, std.label) == ("mean", "standard deviation")
    assert [cell.value for cell in mean.cells[:5]] == ["0.767", "0.770", "0.773", "0.777", ""]
    assert std.cells[0].value == "0.058"
    assert [c.value for c in std.cells[:5]] == [c.value for c in std.cells[5:]]
    fixed = build_table(Subject(comparison, grouping(), BENCHMARKS, FEW, phi))
    assert "information" not in [block.kind for block in fixed.blocks]


def test_without_a_paper_table_there_is_no_such_block(paper):
    ablation = ablation_of(vary={"num_groups": [16, 8]})
    comparison = compare(scores_of(ablation.arms, images=40), ablation, BENCHMARKS, FEW)
    table = build_table(Subject(comparison, ablation, BENCHMARKS, FEW), paper)
    assert [block.kind for block in table.blocks] == ["ours", "difference"]
    assert table.columns == ("GQA", "MME", "POPE", "SQA", "Avg.")


class Shape(HTMLParser):
    """Counts the cells of every table row and notes what a page would load."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[int] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.loads += [given[name] for name in ("src", "href") if name in given]
        if tag == "tr":
            self.rows.append(0)
        if tag in ("td", "th"):
            self.rows[-1] += int(given.get("colspan") or 1)


def test_the_page_is_whole_and_needs_nothing_else(table):
    page = to_html(table)
    shape = Shape()
    shape.feed(page)
    assert set(shape.rows) == {14}
    assert not shape.loads
    assert "<script" not in page
    assert "url(" not in page
    assert 'tbody class="paper"' in page


def test_labels_are_escaped(comparison, paper):
    from dataclasses import replace

    ablation = replace(grouping(), title="K < N & <b>more</b>")
    assert "K &lt; N &amp; &lt;b&gt;" in to_html(
        build_table(Subject(comparison, ablation, BENCHMARKS, FEW), paper)
    )


def test_csv_and_markdown_have_every_row(table):
    rows = list(csv.reader(io.StringIO(to_csv(table))))
    assert len(rows) == 1 + 4 + 2 + 4 + 2
    assert {len(row) for row in rows} == {15}
    assert rows[0][2] == "Retain 64 tokens: GQA"
    text = to_markdown(table)
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1
    assert "***Paper, table 5: LLaVA-1.5-7B, its own benchmarks***" in text


def test_files_are_the_same_each_time(table, tmp_path):
    paths = [tmp_path / f"table.{suffix}" for suffix in ("csv", "md", "html", "tex")]
    write_table(table, paths)
    first = [path.read_bytes() for path in paths]
    write_table(table, paths)
    assert [path.read_bytes() for path in paths] == first
    with pytest.raises(ValueError, match=r"\.csv, \.md, \.html, \.tex"):
        write_table(table, [tmp_path / "table.pdf"])


HOSTILE = "a|b<script>$x^{$ **c** `d` [e](http://f)\\"


def test_markdown_shows_titles_and_labels_letter_by_letter(comparison, paper):
    labels = {"grouping": {"psca": HOSTILE}}
    vary, across = {"grouping": ["random", "kmeans", "psca"]}, {"budget": [64, 128, 192]}
    ablation = ablation_of(title=HOSTILE, vary=vary, across=across, labels=labels)
    text = to_markdown(build_table(Subject(comparison, ablation, BENCHMARKS, FEW), paper))
    shown = r"a\|b\<script>\$x^{\$ \*\*c\*\* \`d\` \[e\](http://f)" + "\\\\"
    assert text.startswith(f"### {shown}\n")
    row, *_ = [line for line in text.splitlines() if line.startswith(f"| {shown} |")]
    head, *_ = [line for line in text.splitlines() if line.startswith("|:--")]
    assert len(re.findall(r"(?<!\\)\|", row)) == head.count("|")
    assert "<script" not in text.replace(r"\<", "")
