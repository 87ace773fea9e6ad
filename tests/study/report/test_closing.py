"""The end of a run: its last message, and a report whose figures can be seen whole."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import snakemake
import yaml
from builders.synthetic_scores import ROOT

from prunesid.study.config.study import load_study
from prunesid.study.report import closing as module
from prunesid.study.report.closing import closing
from prunesid.study.report.finish import TITLE, finish


def test_it_says_where_everything_is(tmp_path, monkeypatch, capsys):
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
    monkeypatch.setattr("sys.argv", ["closing", str(path), "--report", "some/report.html"])
    module.main()
    said = capsys.readouterr().out.splitlines()
    assert said == [
        "Report: some/report.html",
        f"First page: {tmp_path / 'results' / 'index.html'}",
        f"Explorer: {explorer}",
        "Dashboard: 2 runs",
        "W&B: offline",
        "  wandb sync runs",
    ]


def recipe_of(target: str) -> list[str]:
    """The lines of a target of the Makefile."""
    found = re.search(
        rf"^{target}:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE
    )
    assert found is not None
    return found[1].replace("\\\n", "").splitlines()


def test_make_reproduce_says_it_last():
    lines = recipe_of("reproduce")
    assert "-m prunesid.study.report.closing" in lines[-1]
    run, report = (line for line in lines if "/snakemake" in line)
    assert all("planning.bar $(CONFIG) --log" in line for line in (run, report))
    # By the hook it would be said a second time.
    assert "--no-hooks" in run
    assert "--report-stylesheet workflow/report/report.css" in report


@pytest.mark.parametrize(
    ("changed", "writes"),
    [
        (None, False),
        ("results/pocket/ablations/grouping/table.html", True),
        ("results/pocket/runs/trackio/prunesid.db", False),
        ("workflow/report/table.rst", True),
        ("study.yaml", True),
        ("results/report.html", True),
    ],
)
def test_make_reproduce_writes_the_report_only_where_it_is_old(changed, writes, tmp_path):
    """In a project whose commands do nothing; what `changed` names is newer, or is gone."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("requirements.txt", "overrides.txt", "pyproject.toml", "study.yaml"):
        (tmp_path / name).touch()
    report = tmp_path / "results" / "report.html"
    old = ("results/pocket/ablations/grouping/table.html", "workflow/report/table.rst")
    for path in (*(tmp_path / name for name in old), report, tmp_path / ".venv" / ".ready"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / ".venv" / "bin").mkdir()
    for name in ("snakemake", "python"):
        command = tmp_path / ".venv" / "bin" / name
        command.write_text('#!/bin/sh\necho "$0 $@" >> done.txt\n')
        command.chmod(0o755)
    later = report.stat().st_mtime + 10
    if changed == "results/report.html":
        report.unlink()
    elif changed:
        (tmp_path / changed).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / changed).touch()
        os.utime(tmp_path / changed, (later, later))
    make = ["make", "reproduce", "CONFIG=study.yaml"]
    subprocess.run(make, cwd=tmp_path, check=True, capture_output=True)
    asked, run, *others, said = (tmp_path / "done.txt").read_text().splitlines()
    assert "prunesid.study.config study.yaml" in asked
    assert "--no-hooks" in run and "closing" in said
    assert ["--report results/report.html" in line for line in others] == [True, False] * writes
    assert ["finish study.yaml results/report.html" in x for x in others] == [False, True] * writes


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
