"""The page about travel: places, correlations and sentences of made-up studies, in every format."""

import csv
import re
from dataclasses import replace

import pytest
from builders.chapters import FEW, RANKED, chapter_of, spread, study_of
from builders.synthetic_scores import ROOT, ablation_of

from prunesid.study.report.paper import load_paper
from prunesid.study.report.travel import SUFFIXES, build_page, printed, write_page, write_travel

PRINTED = ("prunesid", "visionzip", "divprune", "fastv", "sparsevlm")


@pytest.fixture(scope="module")
def paper():
    return load_paper(ROOT / "configs" / "paper")


@pytest.fixture(scope="module")
def chapters(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chapters")
    return [
        chapter_of(folder, "Model A", spread([*PRINTED, "grid"]), (64, 128), 1),
        chapter_of(folder, "Model B", spread(RANKED), (160, 320, 640), 2, seed=1, whole=2880),
        chapter_of(folder, "Model C", spread(RANKED[::-1]), (136,), seed=2, whole=2048),
    ]


@pytest.fixture(scope="module")
def page(chapters, paper):
    return build_page(chapters, paper, FEW)


def test_every_chapter_stands_beside_the_papers_table_of_its_kind(page):
    _, places = page.tables
    assert places.groups == (("Model A", 2), ("Model B", 2), ("Model C", 1))
    assert places.columns == ("here", "paper, table 1", "here", "paper, table 2", "here")
    assert [block.title for block in places.blocks] == ["Budget 1", "Budget 2", "Budget 3"]
    kept, methods, *rows = places.blocks[0].rows
    assert [cell.value for cell in kept.cells] == [
        "64 of 576", "64 of 576", "160 of 2,880", "160 of 2,880", "136 of 2,048",
    ]  # fmt: skip
    assert kept.cells[-1].interval == "6.6 %"
    counts = [int(cell.value) for cell in methods.cells]
    for column, count in enumerate(counts):
        shown = [row.cells[column].value for row in rows if row.cells[column].value]
        assert len(shown) == count
        assert min(int(value.rstrip("=")) for value in shown) == 1


def test_what_is_not_run_at_a_budget_is_blank(page):
    _, places = page.tables
    last = places.blocks[2].rows
    assert all(row.cells[0].value == row.cells[4].value == "" for row in last)
    fastv = next(row for row in places.blocks[0].rows if row.label == "fastv")
    assert [bool(cell.value) for cell in fastv.cells] == [True, True, False, False, False]


def test_correlations_are_given_for_enough_methods(page):
    correlated, _ = page.tables
    cells = {
        (block.title, row.label): [cell.value for cell in row.cells]
        for block in correlated.blocks
        for row in block.rows
    }
    # Of A's methods B has four.
    assert cells["Model A and", "Model B"] == ["too few", "too few", ""]
    assert cells["Model B and", "Model C"] == ["−1.00", "", ""]
    assert cells["Model B and", "paper, table 2"] == ["too few"] * 3
    assert len(cells["Model A and", "paper, table 1"][0]) == len("+0.00")
    assert ("Model C and", "paper, table 1") not in cells


def test_sentences_say_what_is_significant(page, chapters, paper):
    _, turned, _ = page.lists
    assert any(text.startswith("PruneSID keeps more on Model B, and less on Model C, than ")
               for text in turned[1])  # fmt: skip
    again = [chapters[1], replace(chapters[1], title="Model D")]
    shared, turned, some = build_page(again, paper, FEW).lists
    assert "DivPrune keeps more than PruneSID" in " ".join(shared[1])
    assert "at every budget" in " ".join(shared[1])
    assert turned[1] == some[1] == ("Nothing does.",)


def test_the_papers_row_counts_once_and_budgets_go_by_their_order(paper):
    rows = [
        {"method": "prunesid", "label": "PruneSID"},
        {"method": "prunesid", "preset": "release", "label": "released code"},
        {"method": "prunesid", "dynamic": "benchmark", "label": "PruneSID-Dyn"},
        {"method": "grid"},
    ]
    table = {"paper_table": 1, "average": "column"}
    ablation = ablation_of(vary=rows, across={"budget": [50, 100]}, table=table)
    names = {
        "prunesid": "PruneSID", "prunesid preset=release": "released code",
        "prunesid dynamic=benchmark": "PruneSID-Dyn", "grid": "grid",
    }  # fmt: skip
    found = printed(ablation, paper, names)
    assert [own.kept for own in found] == [64, 128]
    for own in found:
        assert own.values == {
            "PruneSID": paper.cells["1", "prunesid", "", str(own.kept), "average"],
            "PruneSID-Dyn": paper.cells["1", "prunesid-dyn", "", str(own.kept), "average"],
        }
    assert (
        printed(replace(ablation, table=replace(ablation.table, paper_table=None)), paper, names)
        == []
    )


def test_studies_become_a_page_that_needs_nothing_beside_itself(tmp_path, paper):
    given = [
        study_of(tmp_path / "results", title, spread(order), images=10)
        for title, order in (("One", RANKED), ("Two", RANKED[::-1]))
    ]
    for folder in ("first", "again"):
        write_travel(given, paper, [tmp_path / folder / f"travel{end}" for end in SUFFIXES])
    for end in SUFFIXES:
        assert (tmp_path / "first" / f"travel{end}").read_bytes() == (
            tmp_path / "again" / f"travel{end}"
        ).read_bytes()
    html = (tmp_path / "first" / "travel.html").read_text()
    assert re.findall("<h[12]>(.*?)</h[12]>", html) == [
        "Do the findings travel?",
        "What holds on every model",
        "What turns round",
        "Rank correlations",
        "The place of every method",
        "What holds on some models alone",
    ]
    assert html.count("<table") == 2
    assert set(re.findall(r'(?:src|href)="(.{5})', html)) == {"data:"}
    text = (tmp_path / "first" / "travel.md").read_text()
    assert "![rank correlations](travel.png)" in text
    with (tmp_path / "first" / "travel.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert {line["part"] for line in lines} == {"place", "correlation", "difference"}
    assert {line["value"] for line in lines if line["part"] == "correlation"} == {"-1"}


def test_a_chapter_without_images_is_said_to_be_too_few(tmp_path, chapters, paper):
    small = chapter_of(tmp_path, "Tiny", spread(RANKED), images=1)
    page = build_page([chapters[1], small], paper, FEW)
    assert "Tiny: a benchmark has fewer than 2 images, too few to compare." in page.introduction
    assert set(page.numbers["model"].dropna()) == {"Model B"}
    alone = build_page([small], paper, FEW)
    write_page(alone, FEW, [tmp_path / f"alone{end}" for end in SUFFIXES])
    assert alone.lists[0][1] == ("Nothing can be compared.",)


def test_what_cannot_be_written_is_said(page, chapters, paper, tmp_path):
    with pytest.raises(ValueError, match=r"ends in \.csv, \.svg"):
        write_page(page, FEW, [tmp_path / f"travel{end}" for end in (".html", ".md", ".png")])
    with pytest.raises(ValueError, match="titles of their own: Model A"):
        build_page([chapters[0], chapters[0]], paper, FEW)


def test_labels_are_shown_letter_by_letter(chapters, paper, tmp_path):
    hostile = replace(chapters[1], title="<b>a|b</b>")
    page = build_page([hostile, chapters[2]], paper, FEW)
    write_page(page, FEW, [tmp_path / f"travel{end}" for end in SUFFIXES])
    assert "&lt;b&gt;a|b&lt;/b&gt;" in (tmp_path / "travel.html").read_text()
    assert r"\<b>a\|b\</b>" in (tmp_path / "travel.md").read_text()
