"""A whole study by one call: jobs, a report where it is old, the closing message last."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml
from builders.synthetic_scores import ROOT

from prunesid.study import run as module
from prunesid.study.config.documents import ConfigError

STUDY = {"title": "Small", "benchmarks": ["pocket_mme"], "ablations": ["budget"]}


@pytest.fixture
def calls(monkeypatch):
    """The commands that are run in the place of those that were."""
    made: list[list[str]] = []

    def call(command, *_):
        made.append(command)
        if "--report" in command:
            Path(command[command.index("--report") + 1]).touch()
        return 0

    monkeypatch.setattr(module, "_call", call)
    return made


@pytest.fixture
def study(tmp_path, monkeypatch) -> Path:
    """A finished study, its report newer than all else, in the working directory."""
    monkeypatch.chdir(tmp_path)
    path = Path("study.yaml")
    path.write_text(yaml.safe_dump(STUDY | {"results": "runs/results"}))
    table = Path("runs/results/pocket/ablations/budget/table.html")
    table.parent.mkdir(parents=True)
    report = Path("runs/results/report.html")
    for made in (table, report):
        made.touch()
    newest = max(p.stat().st_mtime for p in (*(ROOT / "workflow").rglob("*"), table)) + 10
    os.utime(report, (newest, newest))
    return path


@pytest.mark.parametrize(
    ("changed", "writes"),
    [
        (None, False),
        ("pocket/ablations/budget/table.html", True),
        ("pocket/runs/trackio/prunesid.db", False),
        ("../../study.yaml", True),
        ("report.html", True),
    ],
)
def test_the_report_is_written_only_where_it_is_old(changed, writes, study, calls, capsys):
    results = Path("runs/results")
    if changed == "report.html":
        (results / changed).unlink()
    elif changed:
        path = results / changed
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        later = (results / "report.html").stat().st_mtime + 10
        os.utime(path, (later, later))
    assert module.run(study, "2") == 0
    jobs, *reports = calls
    # By the hook the closing message would be said a second time.
    assert jobs[-3:] == ["--cores", "2", "--no-hooks"]
    assert ["--report" in call and "--report-stylesheet" in call for call in reports] == (
        [True] * writes
    )
    assert f"Report: {results / 'report.html'}" in capsys.readouterr().out


def test_a_dry_run_and_a_failed_one_write_no_report(study, monkeypatch, calls, capsys):
    Path("runs/results/report.html").unlink()
    assert module.run(study, cores="1", dry=True) == 0
    assert calls == []
    capsys.readouterr()
    monkeypatch.setattr(module, "_call", lambda *_: 3)
    assert module.run(study) == 3
    assert capsys.readouterr().out == ""


def test_a_study_that_is_not_valid_starts_nothing(study, calls):
    study.write_text(yaml.safe_dump(STUDY | {"limit": 0}))
    with pytest.raises(ConfigError, match="limit: 0 is less than the minimum"):
        module.run(study)
    assert calls == []


def test_it_finds_the_workflow_from_any_folder(study):
    status = module.run(study, cores="1", dry=True)
    assert status == 0
