"""The examples of docs/extending.md, run as they stand there, from a folder of their own."""

from __future__ import annotations

import csv
import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from builders.synthetic_scores import ROOT

from prunesid import VisionRecord, compress
from prunesid.core.needs import ASKED
from prunesid.core.parameters import Param
from prunesid.core.record import EMBEDDINGS
from prunesid.core.registry import withdraw
from prunesid.methods import features as methods
from prunesid.methods.registry import METHODS
from prunesid.pocket.benchmarks import render
from prunesid.study.config.arm import VANILLA, make_arm
from prunesid.study.config.plugins import load_plugins
from prunesid.study.provenance.code import modules_of
from prunesid.study.provenance.store import Store
from prunesid.study.stages.answers import answer_benchmark
from prunesid.study.stages.features import extract
from prunesid.study.stages.needs import needs_of
from prunesid.study.stages.scores import score_benchmark
from prunesid.study.stages.selection import select_arms
from prunesid.study.stages.source import Runtime, Source

NAMED = re.compile(r"^`([^`\n]+)`\n\n```\w+\n(.*?)^```", re.MULTILINE | re.DOTALL)
FILES = dict(NAMED.findall((ROOT / "docs" / "extending.md").read_text()))
SMALL = "limit: 2\nbootstrap: {resamples: 200}\nwandb: {mode: disabled}\n"


def project(folder: Path) -> Path:
    for name, text in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + SMALL if name == "study.yaml" else text)
    return folder


def snakemake(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--cores", "1", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def jobs(output: str) -> dict[str, int]:
    """The table of jobs that a dry run ends with."""
    return {name: int(count) for name, count in re.findall(r"^(\w+) +(\d+)$", output, re.MULTILINE)}


def test_the_guide_shows_every_extension_point():
    assert set(FILES) == {
        "study.yaml",
        "ablations/spread.yaml",
        "my_methods.py",
        "my_relevance.py",
        "rules/categories.smk",
        "Snakefile",
    }


@pytest.mark.slow
def test_an_ablation_a_plug_in_and_a_rule_beside_the_study(tmp_path):
    folder = project(tmp_path)
    standard = ("-s", str(ROOT / "Snakefile"), "--configfile", "study.yaml")
    table = Path("results/pocket/ablations/spread/table.csv")
    figure = Path("results/pocket/pocket_mme/categories.svg")
    assert {"spread", "categories"} <= set(re.findall(r"\w+", snakemake(folder, *standard, "-n")))
    # Targets first: `--configfile` takes every name that follows it.
    snakemake(folder, str(table), str(figure), *standard)
    with (folder / table).open() as stream:
        rows = {line["row"] for line in csv.DictReader(stream)}
    assert {"PruneSID", "bands instead of components", "longest tokens first"} <= rows
    assert {"farthest points", "most like the question"} <= rows
    assert (folder / figure).read_text().rstrip().endswith("</svg>")

    assert "ablation_spread" not in jobs(snakemake(folder, *standard, "-n"))
    (folder / table).with_name("figure.pdf").unlink()
    assert "ablation_spread" in jobs(snakemake(folder, *standard, "-n"))
    edited = folder / "my_methods.py"
    edited.write_text(edited.read_text().replace("norm(dim=2)", "abs().sum(dim=2)"))
    again = jobs(snakemake(folder, *standard, "-n", str(table)))
    assert {"select", "answer", "score", "ablation_spread"} <= set(again)
    assert not {"images", "features", "information"} & set(again)


@pytest.mark.slow
def test_the_workflow_as_a_module_of_another(tmp_path):
    folder = project(tmp_path)
    # The other project's own rules are its own matter.
    (folder / "rules" / "broken.smk").write_text("raise RuntimeError('included')\n")
    planned = jobs(snakemake(folder, "-n"))
    assert {"mine", "pruning_ablation_spread", "pruning_features"} <= set(planned)
    assert not any("categories" in name for name in planned)
    paper = "results/pocket/ablations/spread/table.html"
    assert "pruning_ablation_spread" in jobs(snakemake(folder, "-n", paper))
    assert "My study: 11 arms, 1 ablation, 1 benchmark" in snakemake(folder, "pruning_estimate")


def test_the_examples_do_what_they_say(tmp_path):
    load_plugins(["my_methods.py", "my_relevance.py"], project(tmp_path))
    try:
        grid = torch.linspace(-1, 1, 9)
        asked = VisionRecord(torch.randn(1, 9, 4), relevance=grid[None])
        assert compress(asked, "likest", budget=2).index.tolist() == [[0, 1]]
        asked = dataclasses.replace(asked, relevance_by=EMBEDDINGS)
        assert compress(asked, "likest", budget=2).index.tolist() == [[7, 8]]
        assert make_arm({"method": "likest"}).asked == ASKED
        grid = torch.linspace(0, 1, 15)[None, :, None]
        record = VisionRecord(torch.cat([torch.cos(3 * grid), torch.sin(3 * grid)], dim=2))
        assert compress(record, "farthest", budget=3).index.tolist() == [[0, 7, 14]]
        assert compress(record, "farthest", budget=1, start=4).index.tolist() == [[4]]
        long = record.features.clone()
        long[:, 5] *= 9
        params = {"score": "norm", "num_groups": 1, "threshold": "off"}
        kept = compress(VisionRecord(long), "prunesid", budget=1, **params)
        assert kept.index.tolist() == [[5]]
        params = {"grouping": "bands", "num_groups": 4, "threshold": "off"}
        wide = VisionRecord(torch.randn(1, 16, 8))
        kept = compress(wide, "prunesid", budget=4, **params)
        assert [place // 4 for place in kept.index[0].tolist()] == [0, 1, 2, 3]
    finally:
        withdraw("prunesid_plugin_my_methods")
        withdraw("prunesid_plugin_my_relevance")


@pytest.fixture
def wider(monkeypatch):
    """The method `prunesid` with one parameter more than it had."""

    def run(*given, novelty, **named):
        assert novelty == 1.0
        return entry.run(*given, **named)

    def complete(given):
        novelty = given.pop("novelty")
        return entry.complete(given) | {"novelty": novelty}

    methods.list_feature_methods()
    entry = METHODS["prunesid"]
    grown = dataclasses.replace(
        entry, run=run, complete=complete, params={**entry.params, "novelty": Param(1.0, float)}
    )

    def grow():
        monkeypatch.setitem(METHODS._entries, "prunesid", grown)
        run.__module__ = "prunesid.methods.features.grid"

    return grow


def test_a_new_axis_renames_no_arm(wider):
    settings = ({}, {"budget": 32}, {"grouping": "kmeans", "num_groups": 8}, {"preset": "matched"})
    before = [make_arm(setting) for setting in settings]
    wider()
    assert [make_arm(setting) for setting in settings] == before
    assert make_arm({"novelty": 2.0}).name == "novelty-2"
    assert make_arm({"novelty": 1.0}) == before[0]


def test_a_new_axis_asks_no_old_arm_again(wider, tmp_path, monkeypatch):
    render("pocket_mme", tmp_path / "mme.parquet", 2)
    source, runtime = Source("pocket_mme", tmp_path / "mme.parquet"), Runtime("pocket")
    arms, store = (VANILLA, make_arm({}), make_arm({"budget": 32})), Store(tmp_path / "store")
    features, chosen, answers = (tmp_path / n for n in ("features.safetensors", "kept", "answers"))
    extract(source, runtime, needs_of(arms), features)
    put, stored = Store.put, []

    def counting(self, material, *arguments, **named):
        stored.append(material["stage"])
        return put(self, material, *arguments, **named)

    def run():
        stored.clear()
        select_arms(features, arms, store, chosen)
        answer_benchmark(source, runtime, features, chosen, arms, store, answers)
        score_benchmark(
            source,
            "pocket_mme",
            "mme_perception_score",
            [answers],
            store,
            tmp_path / "scores.parquet",
        )
        return list(stored)

    monkeypatch.setattr(Store, "put", counting)
    assert run() == ["select"] * 2 + ["answer"] * 3 + ["score"] * 3
    before = modules_of(arms[1])
    wider()
    assert modules_of(arms[1]) != before
    # The method's code is another, so its tokens are chosen again; they are the same tokens.
    assert run() == ["select"] * 2
    assert run() == []
