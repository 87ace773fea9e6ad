"""The shipped studies: each is valid before anything is downloaded, and says what it takes."""

from __future__ import annotations

import re

import pytest
from builders.synthetic_scores import ROOT

from prunesid.pocket import EMBEDDED
from prunesid.pocket.benchmarks import BENCHMARKS as RENDERED
from prunesid.study.clone import in_clone
from prunesid.study.config.chapters import load_whole
from prunesid.study.config.documents import read_yaml
from prunesid.study.config.hub_models import hub_models, hub_tasks
from prunesid.study.config.study import CLIPS
from prunesid.study.planning.checks.tasks import task_data
from prunesid.study.planning.total_cost import (
    ESTIMATE,
    commented,
    row,
    sentence,
    total_cost,
)
from prunesid.study.report.paper import load_paper

PATHS = {path.name: path for path in sorted((ROOT / "configs").glob("*.yaml"))}
# The paper's tables: the budgets of table 2 are those of 2880 tokens, of table 4 those of a clip.
TABLES = {
    "llava-1.5-7b.yaml": {64, 128, 192},
    "llava-next-7b.yaml": {160, 320, 640},
    "mini-gemini-7b.yaml": {64, 128, 192},
    "video-llava-7b.yaml": {136},
}
# Cells of PruneSID's rows of table 3 that the paper's text does not show, by budget.
ILLEGIBLE = {192: {"seed"}, 64: {"gqa", "mmb", "mme", "pope", "sqa", "vqav2", "mmmu"}}


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    """All shipped studies with nothing in the hub's cache, as on a new machine."""
    patch = pytest.MonkeyPatch()
    patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path_factory.mktemp("hub")))
    chapters = {name: load_whole(path).chapters for name, path in PATHS.items()}
    # A study of several models has files of their own for them.
    yield {name: found[0].study for name, found in chapters.items() if len(found) == 1}
    patch.undo()


@pytest.fixture(scope="module")
def real(studies):
    return {name: study for name, study in studies.items() if study.model not in EMBEDDED}


def test_there_is_one_for_every_published_model(real):
    assert {study.model for study in real.values()} == set(hub_models())


def test_each_names_its_commands(real):
    for name in real:
        text = PATHS[name].read_text()
        assert f"make reproduce CONFIG=configs/{name}" in text
        assert f"make check CONFIG=configs/{name}" in text


def test_real_models_run_on_a_gpu_in_half_precision(real):
    assert {(study.device, study.dtype) for study in real.values()} == {("cuda", "bfloat16")}


def test_budgets_are_those_of_the_paper_s_tables(studies):
    for name, expected in TABLES.items():
        # The first ablation is the table of methods.
        first = studies[name].ablations[0]
        assert {column.as_dict()["budget"] for column in first.columns} == expected


def test_benchmarks_and_tables_agree(real):
    """Every column of the paper's table stands in the study."""
    import pandas as pd

    paper = pd.read_csv(ROOT / "configs" / "paper" / "results.csv", dtype=str)
    for name, table in (("llava-1.5-7b.yaml", "1"), ("video-llava-7b.yaml", "4")):
        columns = set(paper[paper["table"] == table]["benchmark"]) - {"average", "llava-b"}
        assert columns <= {b.paper_column for b in real[name].benchmarks}


def test_the_size_of_every_benchmark_is_known(real):
    tasks = {b.task for study in real.values() for b in study.encoded}
    assert tasks <= hub_tasks().keys()
    assert all(not total_cost(study).unknown for study in real.values())


def test_comments_and_docs_say_what_the_estimator_says(real):
    refresh = "python -m prunesid.study.planning.total_cost --write configs/NAME.yaml renews it"
    docs = in_clone("docs", "models.md").read_text()
    for name, study in real.items():
        text, seen = PATHS[name].read_text(), total_cost(study)
        assert commented(text, sentence(seen)) == text, refresh
        assert row(name, study, seen) in docs, refresh


def test_a_benchmark_s_file_says_what_its_task_shows():
    for path in (ROOT / "configs" / "benchmarks").glob("*.yaml"):
        benchmark = read_yaml(path)
        if benchmark["task"] not in RENDERED:
            video = any(part.video for part in task_data(benchmark["task"]))
            assert video == (benchmark.get("shows") == CLIPS), path.name


def test_only_the_estimate_is_replaced():
    text = "# A study.\n#\n# Estimated: 1 GB,\n# or so.\n#\n# More.\ntitle: T\n"
    new = commented(text, "Estimated: 2 GB.")
    assert new == "# A study.\n#\n# Estimated: 2 GB.\n#\n# More.\ntitle: T\n"
    assert commented(new, "Estimated: 2 GB.") == new
    assert max(map(len, commented(text, "Estimated: " + "many words " * 40).splitlines())) <= 115
    assert ESTIMATE.search("# Not estimated.\n") is None


def test_the_docs_name_every_study(real):
    named = set(re.findall(r"`([\w.-]+\.yaml)`", in_clone("docs", "models.md").read_text()))
    assert set(real) <= named


@pytest.mark.parametrize(
    ("name", "title", "tokens", "vanilla"),
    [
        ("llava-1.5-7b.yaml", "LLaVA-1.5-7B", "576", 61.9),
        ("llava-next-7b.yaml", "LLaVA-NeXT-7B", "2880", 64.2),
        ("mini-gemini-7b.yaml", "Mini-Gemini-7B", "576", 62.4),
        ("video-llava-7b.yaml", "Video-LLaVA-7B", "2048", 47.1),
    ],
)
def test_the_paper_s_own_rows_stand_beside_ours(studies, name, title, tokens, vanilla):
    paper = load_paper(ROOT / "configs" / "paper")
    study = studies[name]
    ablation = study.ablations[0]
    assert paper.model_of(ablation) == title and paper.token_count(ablation) == tokens
    columns = [b.paper_column for b in study.benchmarks_of(ablation) if b.paper_column]
    assert paper.all_tokens(ablation, columns[0]) == vanilla
    ours = [cell for cell in ablation.cells if cell.row == ablation.reference]
    assert len(ours) == len(ablation.columns)
    for cell in ours:
        lacking = {c for c in columns if paper.printed(ablation, cell, c) is None}
        damaged = ILLEGIBLE if title == "Mini-Gemini-7B" else {}
        assert lacking == damaged.get(cell.arms[0].budget, set())


def test_every_method_of_table_1_stands_beside_its_printed_row(studies):
    paper, ablation = (
        load_paper(ROOT / "configs" / "paper"),
        studies["llava-1.5-7b.yaml"].ablations[0],
    )
    found = {
        cell.row.label
        for cell in ablation.cells
        if paper.printed(ablation, cell, "average") is not None
    }
    assert found == {
        "ToMe",
        "FastV",
        "SparseVLM",
        "MustDrop, stages 2 and 3",
        "DART",
        "HiRED",
        "PruMerge",
        "VisionZip",
        "VisionZip-Dyn",
        "DivPrune",
        "PruneSID",
        "PruneSID-Dyn",
        "PruneSID, released code",
    }
