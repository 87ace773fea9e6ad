"""The page about a method: its numbers are those of the tables, and every part is there."""

import re
from dataclasses import replace

import numpy as np
import pytest
from builders.synthetic_scores import (
    BENCHMARKS,
    GQA,
    ablation_of,
    facts_of,
    information_of,
    scores_of,
)

from prunesid.study.analysis.comparison import AVERAGE, compare
from prunesid.study.analysis.strata import by_stratum
from prunesid.study.config.study import Bootstrap
from prunesid.study.report import method_losses
from prunesid.study.report.fidelity import agreement_of
from prunesid.study.report.figures import Subject
from prunesid.study.report.method_page import build_page, write_page, write_pages

FEW = Bootstrap(resamples=200)
SKILL = {"grid": 0.9, "fastv": 0.7, "prunesid": 0.8, "vanilla": 0.95}
SUFFIXES = ("html", "md", "svg", "png", "csv")


@pytest.fixture(scope="module")
def subject():
    ablation = ablation_of(
        vary=[
            {"method": "prunesid", "label": "PruneSID"},
            {"method": "grid", "label": "even"},
            {"method": "fastv", "label": "FastV"},
            {"method": "prunesid", "preset": "release", "label": "released code"},
        ],
        across={"budget": [128, 192]},
        seeds=1,
        figure={"kind": "dots"},
    )
    scores = scores_of(ablation.arms, images=30, skill=lambda arm: SKILL[arm.method])
    information = information_of()
    return Subject(
        compare(scores, ablation, BENCHMARKS, FEW),
        ablation,
        BENCHMARKS,
        FEW,
        strata=by_stratum(scores, ablation, BENCHMARKS, information, FEW),
        facts=facts_of(ablation.arms),
    )


def test_accuracy_stands_with_its_difference_and_rank(subject):
    accuracy = build_page("grid", subject).numbers[0]
    assert accuracy.columns == ("GQA", "MME", "POPE", "SQA", "Avg.", "from PruneSID", "rank")
    whole, own, reference = accuracy.blocks
    assert [row.label for row in whole.rows] == ["all tokens"]
    assert (own.title, reference.title) == ("even", "PruneSID, the reference")
    assert [row.label for row in own.rows] == ["128 tokens", "192 tokens"]
    line = subject.comparison.set_index(["row", "column", "benchmark"])
    *_, average, difference, rank = own.rows[0].cells
    found = line.loc[("method=grid", "budget=128", AVERAGE)]
    assert average.value == f"{found['value']:.1f}"
    assert difference.value == f"{found['diff']:+.1f}"
    assert rank.value == "1 of 4"
    assert reference.rows[0].cells[-2].value == ""


def test_all_rows_of_a_method_share_its_page(subject):
    page = build_page("prunesid", subject)
    assert [row.label for row in page.rows] == ["PruneSID", "released code"]
    titles = [block.title for block in page.numbers[0].blocks]
    assert titles == ["", "PruneSID, the reference", "released code"]
    parameters = page.words[1]
    assert parameters.columns == ("default", "choices", "PruneSID", "released code")
    score = next(row for row in parameters.blocks[0].rows if row.label == "score")
    assert [cell.value for cell in score.cells][2:] == ["abs_v", "cls_attention"]
    reads = next(row for row in page.words[0].blocks[0].rows if row.label.startswith("Reads"))
    assert reads.cells[0].value == "nothing; released code: CLS attention, CLS token"


def test_losses_are_those_of_the_strata_worst_first(subject):
    page = build_page("grid", subject)
    strata = subject.strata.set_index(["kind", "benchmark", "stratum", "row", "column"])
    first = page.losses[page.losses["column"] == "budget=128"]
    families = first[first["kind"] == "family"]["diff"]
    assert families.is_monotonic_increasing
    worst = first.iloc[0]
    key = ("family", worst["benchmark"], worst["stratum"], "method=grid", "budget=128")
    assert strata.loc[key, "diff"] == worst["diff"] == families.min()
    phi = first[(first["kind"] == "phi") & (first["benchmark"] == GQA.name)]
    assert list(phi["stratum"]) == ["low", "middle", "high"]
    table = page.numbers[1]
    assert [block.title[:6] for block in table.blocks] == ["By que", "By inf"]
    assert len(table.blocks[0].rows) == len(families)
    assert table.columns == ("questions", "all tokens", "128 tokens", "192 tokens")


def test_the_picture_has_a_series_per_column_or_per_row(subject):
    for method, labels in (
        ("grid", ["128 tokens", "192 tokens"]),
        ("prunesid", ["PruneSID", "released code"]),
    ):
        page = build_page(method, subject)
        drawn = method_losses.draw(page.losses, subject, page.rows)
        assert [text.get_text() for text in drawn.legends[0].get_texts()] == labels
        left = drawn.axes[0]
        first = page.losses[page.losses["kind"] == "family"]
        row, column = method_losses.series_of(subject, page.rows)[0]
        own = first[(first["row"] == row.key) & (first["column"] == column.key)]
        assert np.allclose(left.containers[0].lines[0].get_xdata(), own["diff"])


def test_a_page_says_where_the_method_acts_and_what_it_costs(subject, tmp_path):
    page = build_page("fastv", subject)
    write_page(page, subject, tmp_path)
    text = (tmp_path / "fastv.md").read_text()
    assert "| Acts | inside the language model, by what is asked |" in text
    assert re.search(
        r"^\| Source \| An Image is Worth 1/2 Tokens .*, ECCV 2024 \|$", text, re.MULTILINE
    )
    assert "| Authors' code | pkunlp-icler/FastV, commit d165972 |" in text
    assert f"| Equal to it | {agreement_of('fastv')} |" in text
    assert "| Default differs from it in | k, budget_counts |" in text
    assert "![losses](fastv.png)" in text
    assert "With all tokens a question takes 1.50 G multiply-adds." in text
    assert "KV entries: visual tokens in the caches" in text
    page_text = (tmp_path / "fastv.html").read_text()
    assert page_text.count("<table") == 5
    headings = re.findall("<h[12]>(.*?)</h[12]>", page_text)
    assert headings == ["FastV", "Accuracy", "Where it fails", "Tokens and multiply-adds"]
    assert "src=" in page_text and "http" not in page_text


def test_the_same_pages_each_time(subject, tmp_path):
    for folder in ("one", "other"):
        write_pages(subject, None, tmp_path / folder)
    names = {f"{method}.{end}" for method in ("prunesid", "grid", "fastv") for end in SUFFIXES}
    assert {path.name for path in (tmp_path / "one").iterdir()} == names
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "other" / path.name).read_bytes()


def test_what_is_missing_is_said(subject):
    with pytest.raises(ValueError, match="no method 'pool'. Available: prunesid, grid, fastv"):
        build_page("pool", subject)
    with pytest.raises(ValueError, match="by stratum"):
        build_page("grid", replace(subject, strata=None))
    with pytest.raises(ValueError, match="what the arms cost"):
        build_page("grid", replace(subject, facts=None))
