"""The end of a run: its last message, and a report whose figures can be seen whole."""

from __future__ import annotations

import re
from pathlib import Path

import snakemake
import yaml
from builders.synthetic_scores import ROOT

from prunesid.study.config.study import load_study
from prunesid.study.report.closing import closing
from prunesid.study.report.finish import TITLE, finish


def test_it_says_where_everything_is(tmp_path):
    given = {"title": "Small", "benchmarks": ["pocket_mme"], "ablations": ["budget"]}
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(given | {"results": str(tmp_path / "results")}))
    before = closing([load_study(path)])
    assert str(tmp_path / "results" / "pocket" / "ablations") in before
    assert "make reproduce" in before
    published = tmp_path / "results" / "pocket" / "published.txt"
    published.parent.mkdir(parents=True)
    published.write_text("Runs: 2 as JSON\nW&B: offline\n  wandb sync runs\nDashboard: 2 runs\n")
    explorer = published.parent / "explorer" / "index.html"
    explorer.parent.mkdir()
    for page in (explorer, tmp_path / "results" / "index.html"):
        page.touch()
    said = closing([load_study(path)], Path("some/report.html")).splitlines()
    assert said == [
        "Report: some/report.html",
        f"First page: {tmp_path / 'results' / 'index.html'}",
        f"Explorer: {explorer}",
        "Dashboard: 2 runs",
        "W&B: offline",
        "  wandb sync runs",
    ]


def test_the_stylesheet_is_about_the_box_of_this_snakemake():
    """In Chromium the box without it hides what lies above a tall figure's visible part."""
    rule = re.search(
        r"#app (\S+) \{(.*?)\}", (ROOT / "workflow/report/report.css").read_text(), re.S
    )
    assert rule is not None and "align-items: safe center" in rule[2]
    template = Path(snakemake.__file__).parent / "report" / "html_reporter" / "template"
    source = (template / "components" / "content.js").read_text()
    box = re.search(r'class ContentDisplay.*?className: "([^"]*)"', source, re.S)
    assert box is not None and set(rule[1].split(".")[1:]) <= set(box[1].split())
    assert "custom_stylesheet" in (template / "index.html.jinja2").read_text()


def test_a_report_has_the_studys_title_and_no_warning(tmp_path):
    template = Path(snakemake.__file__).parent / "report" / "html_reporter" / "template"
    assert TITLE in (template / "index.html.jinja2").read_text()
    report = tmp_path / "report.html"
    warning = 'console.warn("cdn.tailwindcss.com should not be used in production.");x()'
    report.write_text(f"<head>{TITLE}</head><script>{warning}</script>")
    finish(report, "Tokens & models")
    assert report.read_text() == (
        "<head><title>Tokens &amp; models</title></head><script>void 0;x()</script>"
    )
