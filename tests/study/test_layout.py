"""Paths of results: patterns for rules and paths for everyone else are the same."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from builders.synthetic_scores import ROOT

from prunesid.study.config.study import load_study
from prunesid.study.job import Job
from prunesid.study.layout import Layout
from prunesid.study.stages.shard import Shard

NAMES = {"benchmark": "gqa", "shard": "1-of-2", "ablation": "few", "task": "pocket_gqa"}


@pytest.fixture(scope="module")
def study():
    return load_study(ROOT / "configs" / "quick.yaml")


def test_what_is_left_out_stands_as_a_wildcard(study):
    layout = Layout.of(study)
    shard = Shard(1, 2)
    for pattern, path in (
        (layout.data(), layout.data("pocket_gqa")),
        (layout.features(), layout.features("gqa", shard)),
        (layout.questions(), layout.questions("gqa", shard)),
        (layout.keys("answers"), layout.keys("answers", "gqa", shard)),
        (layout.costs(), layout.costs("gqa")),
        (layout.scores(), layout.scores("gqa")),
        (layout.metrics(), layout.metrics("gqa")),
        (layout.comparison(), layout.comparison("few")),
        (layout.ablation("table.csv"), layout.ablation("table.csv", "few")),
    ):
        assert "{" in str(pattern)
        assert str(pattern).format(**NAMES) == str(path)


def test_no_two_files_have_one_place_and_all_lie_below_the_results(study):
    layout = Layout.of(study)
    own = [
        layout.store, layout.cache, layout.data(), layout.features(), layout.questions(),
        *(layout.keys(stage) for stage in ("encoded", "selections", "answers")),
        layout.time("score", "{benchmark}"), layout.time("information"), layout.costs(),
        layout.scores(), layout.metrics(), layout.comparison(), layout.ablation("table.csv"),
        layout.information, layout.budgets, layout.figure("a.svg"), layout.notebook("a.ipynb"),
        layout.explorer, layout.runs, layout.published,
    ]  # fmt: skip
    assert len(set(own)) == len(own)
    assert all(path.is_relative_to(study.results) for path in own)


def job(**inputs) -> Job:
    rule = SimpleNamespace(
        threads=1,
        input=inputs,
        output=["out.csv", "out.svg"],
        wildcards=SimpleNamespace(benchmark="gqa", shard="1-of-2"),
    )
    return Job(rule)


def test_a_job_s_files_and_wildcards():
    given = job(features="f", questions=[], answers=["a", "b"])
    assert str(given.input("features")) == "f" and list(map(str, given.inputs("answers"))) == [
        "a",
        "b",
    ]
    # A rule without such an input, and a job that needs none.
    assert given.optional("data") is given.optional("questions") is None
    assert given.optional("features") == given.input("features")
    assert given.output.name == "out.csv" and len(given.outputs) == 2
    assert given.shard == Shard(1, 2)
    with pytest.raises(KeyError):
        given.input("data")
