"""The first page: its sentences say what the tables say, and it links what is there."""

from __future__ import annotations

import re
from dataclasses import replace

import pandas as pd
import pytest
import yaml
from builders.chapters import FEW, RANKED, spread, study_of
from builders.synthetic_scores import ROOT, ablation_of

from prunesid.study.analysis.comparison import compare, read_comparison, write_csv
from prunesid.study.analysis.measurement import read_scores
from prunesid.study.analysis.pairs import read_pairs
from prunesid.study.config.ablation import Setting
from prunesid.study.config.study import load_study
from prunesid.study.layout import Layout
from prunesid.study.report import findings
from prunesid.study.report.front import Chapter, build_front, main_table, write_front
from prunesid.study.report.paper import load_paper
from prunesid.study.report.places import PICTURES, PLACES, shelf, unbraced

PAPER = load_paper(ROOT / "configs" / "paper")
NUMBER = re.compile(r"[−+]?\d+\.\d")


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    """Two finished chapters, of which the first has files to link."""
    folder = tmp_path_factory.mktemp("front")
    found = []
    for title, skill, budgets, table in (
        ("Model A", spread(RANKED), (64, 128), 1),
        ("Model B", spread(RANKED[::-1], 0.001), (160, 320), 2),
    ):
        study, ablation = study_of(folder, title, skill, budgets, table)
        layout = Layout.of(study)
        scores = read_scores(layout.scores(b.name) for b in study.benchmarks)
        lines = compare(scores, ablation, study.benchmarks, FEW)
        write_csv(lines, layout.comparison(ablation.name))
        found.append(study)
    layout = Layout.of(found[0])
    for path in (
        layout.ablation("table.html", found[0].ablations[0].name),
        layout.explorer / "index.html",
        layout.figure("information.svg"),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    layout.published.write_text("W&B: 2 runs recorded offline\n")
    return found


def read(study):
    ablation, layout = study.ablations[0], Layout.of(study)
    lines = read_comparison(layout.comparison(ablation.name))
    return ablation, lines, read_pairs(layout.ablation("pairs.csv", ablation.name))


def test_the_best_and_those_not_worse_are_named_with_their_numbers(studies):
    ablation, lines, pairs = read(studies[0])
    ablation = replace(ablation, reference=ablation.rows[RANKED.index("prunesid")])
    best, reference = findings.leaders(ablation, lines, pairs)
    average = lines[(lines["column"] == "budget=64") & (lines["benchmark"] == "average")]
    top = average.sort_values("value").iloc[-1]
    assert best.startswith(f"DivPrune keeps the most at 64 tokens: {top['value']:.1f} %")
    assert NUMBER.findall(best) == [f"{top[x]:.1f}" for x in ("value", "ci_low", "ci_high")]
    # It differs by far more than chance from the last, which is not among its equals.
    assert "pool" not in best
    assert reference.startswith("PruneSID is in place 2 of 6 at 64 tokens")
    assert "pool" in reference.partition("worse:")[2]


def test_nothing_is_called_sure_where_no_test_is(studies):
    ablation, lines, pairs = read(studies[1])
    assert lines["p_holm"].dropna().min() > 0.05
    few = replace(ablation, rows=ablation.rows[:3], cells=ablation.cells[:6])
    said = findings.seen(few, lines, pairs)
    assert said.startswith("None of ") and "is significant" in said
    assert findings.largest([("Model B", few, lines)]) == ""


def test_a_difference_has_its_sign_in_words():
    ablation = ablation_of(
        vary={"num_groups": [8, 16]},
        labels={"num_groups": {8: "K = 8", 16: "K = 16"}},
        reference={"num_groups": 16},
    )
    values = {"row": "num_groups=8", "column": "all", "benchmark": "average"}
    numbers = {"diff": -5.25, "diff_low": -7.0, "diff_high": -3.0, "p_holm": 0.001, "value": 90.0}
    said = findings.seen(ablation, pd.DataFrame([values | numbers]), pd.DataFrame())
    assert said == "K = 8 keeps 5.2 points less than K = 16 (−7.0 to −3.0); this is significant."


def test_the_fastest_is_that_of_the_smallest_batch():
    ablation = ablation_of(vary={"method": ["grid", "prunesid"]})
    lines = [
        {"arm": arm, "attention": kernel, "batch": batch, "what": what, "p50": time}
        for arm, kernel, batch, what, time in (
            ("vanilla", "", 1, "whole", 0.04125),
            ("vanilla", "flash", 1, "whole", 0.001),
            ("default", "", 1, "whole", 0.03),
            ("default", "", 8, "whole", 0.002),
            ("default", "", 1, "prefill", 0.002),
            ("method-grid", "", 1, "whole", 0.025),
        )
    ]
    times = pd.DataFrame(lines).assign(p50_low=0.0101, p50_high=0.05)
    assert findings.fastest(ablation, times) == (
        "A request takes 41.2 ms (10.1 to 50) with all tokens; the fastest is grid: 25 ms "
        "(10.1 to 50)."
    )
    assert findings.fastest(ablation, times[times["arm"] == "vanilla"]) == ""


def test_the_main_table_goes_from_the_most_to_the_least(studies):
    table = main_table(Chapter(studies[0]), PAPER)
    kept = [float(row.cells[0].value) for row in table.blocks[0].rows]
    assert kept == sorted(kept, reverse=True) and len(kept) == len(RANKED)
    # The paper has three of these methods at these budgets.
    printed = {row.label: row.cells[2].value for row in table.blocks[0].rows if row.cells[2].value}
    assert printed == {"PruneSID": "95.9", "VisionZip": "94.0", "DivPrune": "94.6"}


def test_every_place_of_the_paper_is_there_in_order_with_a_link_or_a_reason(studies):
    page = build_front("Two models", [Chapter(study) for study in studies], PAPER)
    assert [section.title.lower() for section in page.paper] == list(PLACES)
    assert {f"table {n}" for n in range(1, 9)} | {"figure 1", "figure 2"} <= set(PLACES)
    for section in page.paper:
        assert section.parts or "configs/" in section.text, section.title


def test_it_links_what_is_there_and_nothing_else(studies, tmp_path):
    outputs = [studies[0].results / "index.html", studies[0].results / "start.html"]
    write_front("Two models", studies, PAPER, None, outputs)
    page, part = (path.read_text() for path in outputs)
    links = re.findall(r'href="([^"#]*)"', page)
    assert links and all((studies[0].results / link).is_file() for link in links)
    assert any(link.endswith("explorer/index.html") for link in links)
    assert "<title>Two models</title>" in page and "W&amp;B: 2 runs recorded offline" in page
    assert "onclick" not in page and "<html" not in part
    # Within Snakemake's report a link names the file as the report does.
    files = re.findall(r'data-file="([^"]*)"', part)
    assert [str(studies[0].results / link) for link in links] == files
    again = [tmp_path / path.name for path in outputs]
    write_front("Two models", studies, PAPER, None, again)
    assert again[0].read_text() == page


def test_the_studies_that_are_named_for_a_place_have_it():
    for place, (_, files) in PLACES.items():
        for name in re.findall(r"configs/\S+\.yaml", files):
            study = load_study(ROOT / name.rstrip(","))
            wanted = "table 1" if place == "figure 2" else place
            assert wanted in {ablation.in_paper for ablation in study.ablations}, (place, name)


def test_the_schema_knows_the_places():
    schema = yaml.safe_load((ROOT / "workflow/schemas/ablation.schema.yaml").read_text())
    assert set(schema["properties"]["place"]["enum"]) - {None} <= set(PLACES)


def test_a_title_has_no_wildcards_in_snakemakes_report():
    assert unbraced("{a} and a } of {model}") == "(a) and a ) of (model)"


def test_a_shelf_says_where_the_paper_has_it():
    ablation = ablation_of(vary={"grouping": ["psca", "random"]}, title="Groups")
    assert shelf(ablation) == "Ours: Groups"
    assert shelf(replace(ablation, place="table 5")) == "Table 5: Groups"
    assert ablation.columns == (Setting((), ""),)
    assert set(ablation.figure.kinds) <= set(PICTURES)
