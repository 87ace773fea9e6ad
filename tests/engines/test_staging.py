"""A study whose results lie in a storage and are copied to and from each job."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
from pathlib import Path

import pytest
from builders import study_runs
from builders.study_runs import tables

from prunesid.core.files import file_digest

NEEDED = ("snakemake_storage_plugin_fs", "snakemake_executor_plugin_cluster_generic")
MISSING = [name for name in NEEDED if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"{' and '.join(MISSING)} not installed"),
    pytest.mark.skipif(shutil.which("rsync") is None, reason="no rsync"),
    pytest.mark.skipif(not os.environ.get("PRUNESID_STAGING"), reason="takes minutes: asked for"),
]
STUDY = """\
title: Copied to and from jobs
benchmarks: [pocket_gqa]
ablations: [one_of_each]
seeds: 1
limit: 4
shards: 2
batch_size: 2
results: results/quick
bootstrap: {resamples: 100}
wandb: {mode: disabled}
"""
# Inside the encoder, before the language model by its question, inside the language model.
ABLATION = """\
title: Methods of each kind
vary:
  method: [tome, cdpruner, fastv]
across: {budget: [128]}
reference: {method: fastv}
"""
ONE_MORE = ABLATION.replace("fastv]", "fastv, grid]")
STAGES = ("encoded", "selections", "answers")


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    """The study's file, beside its ablation. All of its images are in one of its two parts."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "ablations").mkdir()
    (folder / "ablations" / "one_of_each.yaml").write_text(ABLATION)
    (folder / "study.yaml").write_text(STUDY)
    return folder / "study.yaml"


def local(folder: Path, study: Path) -> dict[str, str]:
    """The tables of the study on one machine."""
    study_runs.run(folder, "--workflow-profile", "none", "--cores", "2", study=study)
    return tables(folder)


def staging(folder: Path) -> list[str]:
    """Snakemake's options for jobs that share the clone and the working directory, not the results.

    Each job fetches its inputs to a disk of its own, and stores its outputs from there.
    """
    return [
        "--workflow-profile", "none", "--keep-incomplete", "--jobs", "2", "--scheduler", "greedy",
        "--executor", "cluster-generic", "--cluster-generic-submit-cmd", "sh",
        "--seconds-between-status-checks", "1",
        "--default-storage-provider", "fs", "--default-storage-prefix", str(folder / "storage"),
        "--remote-job-local-storage-prefix", str(folder / "disk"),
        "--shared-fs-usage", "persistence", "software-deployment", "sources", "source-cache",
    ]  # fmt: skip


def shown(storage: Path) -> dict[str, str]:
    """The tables and pictures in the storage, without the entries of single arms."""
    folders = {*STAGES, "scores"}
    return {
        path: digest for path, digest in tables(storage).items()
        if not folders & set(Path(path).parts)
    }  # fmt: skip


def explorer(folder: Path) -> dict[str, str]:
    """Every file of the explorer: its data, images and page."""
    of = folder / "results/quick/pocket/explorer"
    files = (path for path in sorted(of.rglob("*")) if path.is_file())
    return {str(path.relative_to(of)): file_digest(path) for path in files}


def first_page(folder: Path) -> str:
    """The first page, but for the time of the run."""
    page = (folder / "results/quick/index.html").read_text()
    return re.sub(r"Answers scored .*? \(UTC\)", "", page)


def entries(storage: Path) -> dict[str, set[str]]:
    """{stage: the keys} of everything that was stored arm by arm."""
    benchmark = storage / "results/quick/pocket/pocket_gqa"
    return {
        stage: {path.stem for path in benchmark.glob(f"**/{stage}/*.json")}
        for stage in (*STAGES, "scores")
    }


def test_a_staged_study_has_the_tables_of_a_local_one_and_computes_an_arm_once(study, tmp_path):
    machine, cluster = tmp_path / "machine", tmp_path / "cluster"
    machine.mkdir()
    cluster.mkdir()
    options, storage = staging(tmp_path), tmp_path / "storage"

    expected = local(machine, study)
    assert len(expected) > 15
    study_runs.run(cluster, *options, study=study)
    assert shown(storage) == expected
    assert len(explorer(storage)) > 20
    assert explorer(storage) == explorer(machine)
    assert first_page(storage) == first_page(machine)
    assert 'href="pocket/explorer/index.html"' in first_page(storage)
    # Results are in the storage alone.
    assert not tables(cluster)
    assert not (cluster / "results/quick/store").exists()

    assert "Nothing to be done" in study_runs.run(cluster, *options, study=study)

    before = entries(storage)
    (study.parent / "ablations" / "one_of_each.yaml").write_text(ONE_MORE)
    study_runs.run(cluster, *options, study=study)
    after = entries(storage)
    assert all(before[stage] and before[stage] <= after[stage] for stage in before)
    # An arm of features: no other pass of the encoder, one selection, its answers and scores.
    new = {stage: len(after[stage] - before[stage]) for stage in before}
    assert new == {"encoded": 0, "selections": 1, "answers": 1, "scores": 1}
    assert shown(storage) == local(machine, study)

    study_runs.run(cluster, *options, "--", "export", study=study)
    lines = (storage / "results/quick/pocket/export/index.csv").read_text().splitlines()
    assert len(lines) == 1 + 5  # all tokens and four methods


def test_arms_that_a_failed_job_would_take_along_are_refused_at_once(study, tmp_path):
    options = [each for each in staging(tmp_path) if each != "--keep-incomplete"]
    with pytest.raises(RuntimeError, match="add --keep-incomplete"):
        study_runs.run(tmp_path, *options, "--dry-run", study=study)
