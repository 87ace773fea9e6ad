"""A reader meets labels: no name of an arm as the code has it is on any page of a study."""

from __future__ import annotations

import pytest
from builders import study_runs
from builders.readers import internal_names, shown_to_readers, texts_of
from builders.synthetic_scores import ROOT

from prunesid.study.config.study import load_study
from prunesid.study.report.closing import closing

STUDY = load_study(ROOT / "configs" / "quick.yaml")
# The heading of a column of every method's page.
HEADING = "default"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("default", ["default"]),
        ("by default, PruneSID", []),
        ("vanilla: 90.1", ["vanilla"]),
        ("method-fastv_budget-128 (right): red", ["method-fastv_budget-128"]),
        ("FastV, 128 tokens", []),
    ],
)
def test_names_are_told_from_words(text, names):
    assert internal_names(STUDY, text) == names


def test_every_arm_of_the_studies_has_a_label_of_its_own():
    for name in ("quick", "pocket", "pocket_next", "full"):
        study = load_study(ROOT / "configs" / f"{name}.yaml")
        labels = study.labels
        assert set(labels) == {arm.name for arm in study.arms}
        assert len(set(labels.values())) == len(labels)
        assert not [label for label in labels.values() if internal_names(study, label)]


@pytest.mark.slow
def test_no_page_of_the_quick_study_has_one(tmp_path, monkeypatch):
    study_runs.run(tmp_path, "--cores", "2")
    results = tmp_path / "results" / "quick"
    pages = list(shown_to_readers(results))
    suffixes = {path.suffix for path in pages}
    assert suffixes == {".html", ".md", ".svg", ".json", ".txt"} and len(pages) > 40
    found = {
        str(path.relative_to(results)): names
        for path in pages
        for text in texts_of(path)
        if (names := internal_names(STUDY, text))
        and not (text == HEADING and path.parent.name == "methods")
    }
    assert found == {}
    monkeypatch.chdir(tmp_path)
    assert not internal_names(STUDY, closing([STUDY]))
