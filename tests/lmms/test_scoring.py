"""Replayed answers score like live ones, and the plug-in runs from lmms-eval's command line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from builders.family_models import FAMILIES
from builders.pocket_data import BENCHMARKS, rows_of, write_benchmark
from builders.tiny_llava import random_images
from builders.videos import write_clips
from datasets import Dataset, Image
from lmms_eval.evaluator import simple_evaluate
from lmms_eval.tasks import TaskManager

from prunesid import families
from prunesid.core.needs import Needs
from prunesid.core.questions import Answer
from prunesid.generate.engine import answer
from prunesid.generate.late import answer_late
from prunesid.lmms.plugin import PruneSID
from prunesid.lmms.scoring import COLUMNS, score, score_table
from prunesid.lmms.tasks import FOLDER, LmmsTask, load_task

METRICS = {
    "pocket_pope": "pope_f1_score,none",
    "pocket_gqa": "exact_match,none",
    "pocket_mme": "mme_perception_score,none",
    "pocket_sqa": "exact_match,none",
}


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    return {
        name: load_task(name, data=write_benchmark(folder / f"{name}.parquet", name))
        for name in BENCHMARKS
    }


WRONG = {"yes": "no", "no": "yes", "red": "blue", "3": "4"}


def replies(benchmark, wrong=()):
    return {
        str(number): WRONG.get(row["answer"], "?") if number in wrong else row["answer"]
        for number, row in enumerate(rows_of(benchmark))
    }


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_right_answers_get_full_marks_and_wrong_ones_none(tasks, benchmark):
    task, metric = tasks[benchmark], METRICS[benchmark]
    full = score(task, replies(benchmark), metric)
    assert full.metrics[metric] == (400.0 if benchmark == "pocket_mme" else 1.0)
    assert set(full.by_question.values()) == {1.0}
    wrong = {0, 3}
    partly = score(task, replies(benchmark, wrong), metric)
    assert {number for number, each in partly.by_question.items() if each == 0} == {"0", "3"}
    assert partly.metrics[metric] < full.metrics[metric]


def test_known_values(tasks):
    answers = replies("pocket_pope", wrong=(0,)) | {"1": "yes"}
    found = score(tasks["pocket_pope"], answers, "pope_f1_score").metrics
    assert found["pope_f1_score,none"] == pytest.approx(2 * 3 / (2 * 3 + 1 + 1))
    assert found["pope_accuracy,none"] == pytest.approx(6 / 8)
    found = score(tasks["pocket_mme"], replies("pocket_mme", wrong=(0,)), "mme_perception_score")
    assert found.metrics["mme_perception_score,none"] == pytest.approx((7 / 8 + 3 / 4) * 100 + 200)
    letter = replies("pocket_sqa") | {"0": "a", "1": "B. blue", "2": "C"}
    assert list(score(tasks["pocket_sqa"], letter, "exact_match").by_question.values()) == [
        1.0,
        1.0,
        0.0,
        *[1.0] * 5,
    ]


def test_missing_answers_and_unknown_metrics_are_errors(tasks):
    with pytest.raises(ValueError, match="1 of 8 questions have no answer, the first is 2"):
        answers = replies("pocket_gqa")
        del answers["2"]
        score(tasks["pocket_gqa"], answers, "exact_match")
    with pytest.raises(ValueError, match="Did you mean 'exact_match'"):
        score(tasks["pocket_gqa"], replies("pocket_gqa"), "exact_mach")


@pytest.mark.parametrize("arm", [{}, {"method": "prunesid", "budget": 6}])
@pytest.mark.parametrize("benchmark", ["pocket_pope", "pocket_mme"])
def test_replayed_answers_score_as_the_live_model_does(tasks, tiny_llava, benchmark, arm):
    task = tasks[benchmark]
    live = {
        share: simple_evaluate(
            model=PruneSID(str(tiny_llava), batch_size=3, share_prefix=share, **arm),
            tasks=[task.task],
            task_manager=TaskManager("WARNING", include_defaults=False),
            bootstrap_iters=0,
        )
        for share in (True, False)
    }
    said = {
        share: {
            str(each["doc_id"]): each["filtered_resps"][0] for each in run["samples"][benchmark]
        }
        for share, run in live.items()
    }
    assert said[True] == said[False]
    answers = _answers(tiny_llava, task, arm)
    assert {each.question_id: each.answer for each in answers} == said[True]
    replayed = score(task, said[True], METRICS[benchmark])
    for key, value in replayed.metrics.items():
        assert value == live[True]["results"][benchmark][key]

    table = score_table(replayed, task.questions(), answers, benchmark=benchmark, arm="some")
    assert tuple(table.columns) == COLUMNS
    assert table["tokens"].unique().tolist() == [arm.get("budget", 16)]
    assert table["answer"].tolist() == list(said[True].values())


def _answers(path: Path, task, arm) -> list[Answer]:
    """The pipeline's way: encode all images once, compress, answer."""
    adapter, questions = families.load(path), task.questions()
    first = {question.image_id: question for question in reversed(questions)}
    ids = list(first)
    inputs = adapter.preprocess([task.image(first[image]) for image in ids])
    records = adapter.encode(inputs, names=ids)
    kept = records.compress(arm["method"], budget=arm["budget"]) if arm else records.all_tokens()
    return answer(adapter, kept, records.inputs, questions)


@pytest.mark.parametrize("method", ["fastv", "mustdrop"])
def test_a_late_method_answers_as_the_pipeline_does(tasks, tiny_llava, method):
    params = {"rule": "budget"} if method == "mustdrop" else {}
    task = tasks["pocket_pope"]
    live = simple_evaluate(
        model=PruneSID(str(tiny_llava), batch_size=3, method=method, budget=10, **params),
        tasks=[task.task],
        task_manager=TaskManager("WARNING", include_defaults=False),
        bootstrap_iters=0,
    )
    said = {
        str(each["doc_id"]): each["filtered_resps"][0] for each in live["samples"]["pocket_pope"]
    }
    adapter, questions = families.load(tiny_llava), task.questions()
    first = {question.image_id: question for question in reversed(questions)}
    ids = list(first)
    inputs = adapter.preprocess([task.image(first[image]) for image in ids])
    records = adapter.encode(inputs, Needs(last_cls_attention=True), ids)
    kept = records.all_tokens()
    found = answer_late(
        adapter, kept, records.inputs, questions, method, budget=10, params=params,
        cls_attention=records.gather(kept.index, "last_cls_attention"),
    )  # fmt: skip
    assert {each.question_id: each.answer for each in found.answers} == said
    assert set(found.entering[:, -1].tolist()) == {7 if method == "fastv" else 5}


def test_model_arguments_are_checked(tiny_llava):
    for arguments, message in (
        ({"method": "prunsid", "budget": 4}, "Did you mean 'prunesid'"),
        ({"method": "prunesid", "budget": 4, "grouping": "means"}, "kmeans"),
        ({"method": "prunesid"}, "method and budget go together"),
        ({"method": "vanilla", "budget": 4}, "method and budget go together"),
        ({"grouping": "psca"}, "parameters need a method"),
        ({"method": "prunesid", "budget": 4, "dtype": "int8"}, "Available: bfloat16"),
        ({"method": "fastvv", "budget": 10}, "Did you mean 'fastv'"),
        ({"method": "fastv", "budget": 4}, "smallest possible budget is 6"),
        ({"method": "fastv", "budget": 10, "share_prefix": False}, "leave share_prefix on"),
    ):
        with pytest.raises(ValueError, match=message):
            PruneSID(str(tiny_llava), **arguments)


PAIRS = """
task: pairs
dataset_path: parquet
dataset_kwargs: {data_files: {test: data/pairs.parquet}}
test_split: test
output_type: generate_until
doc_to_visual: images
doc_to_text: question
doc_to_target: answer
generation_kwargs: {max_new_tokens: 8}
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
"""


def write_pairs(folder: Path, targets: list[str]) -> None:
    """The data of a task of one's own: questions on two images each."""
    pictures = random_images(2 * len(targets), size=84)
    columns = {
        "question": [f"is there a red circle ? {n + 1}" for n in range(len(targets))],
        "answer": targets,
        "images": [pictures[2 * n : 2 * n + 2] for n in range(len(targets))],
    }
    rows = Dataset.from_dict(columns).cast_column("images", [Image()])
    rows.to_parquet(folder / "pairs.parquet")


def pipeline_answers(model: Path, task: LmmsTask, arm: dict) -> dict[str, str]:
    """Answers by question id, with all media encoded once and compressed."""
    adapter, questions = families.load(model), task.questions()
    shown = {question.image_id: task.media(question) for question in questions}
    owners = [image for image, media in shown.items() for _ in media]
    inputs = adapter.preprocess([medium for media in shown.values() for medium in media])
    records = adapter.encode(inputs, names=owners)
    found = answer(adapter, records.compress(**arm), records.inputs, questions)
    return {each.question_id: each.answer for each in found}


@pytest.mark.slow
def test_the_command_line_answers_and_scores_as_the_pipeline(tmp_path, tiny_llava):
    """One image, two, and a clip per question. Half of the right answers are the pipeline's own."""
    FAMILIES["qwen2_vl"](tmp_path / "tiny", tiny_llava)
    shutil.copytree(FOLDER, tmp_path / "tasks")
    (tmp_path / "tasks" / "pairs.yaml").write_text(PAIRS)
    write_benchmark(tmp_path / "results/pocket/data/pocket_pope.parquet", "pocket_pope")
    arm = {"method": "prunesid", "budget": 5, "grouping": "kmeans", "seed": 1}
    data, said, expected = tmp_path / "data", {}, {}
    data.mkdir()
    for name, write, metric in (
        ("pairs", write_pairs, "exact_match"),
        ("msvd_qa", write_clips, "answer_match"),
    ):
        write(data, ["nothing"] * 4)
        task = load_task(name, tmp_path / "tasks", data=data / f"{name}.parquet")
        said[name] = pipeline_answers(tmp_path / "tiny", task, arm)
        write(data, ["nothing" if int(n) % 2 else text for n, text in said[name].items()])
        task = load_task(name, tmp_path / "tasks", data=data / f"{name}.parquet")
        expected[name] = score(task, said[name], metric).metrics
        assert 0 < expected[name][f"{metric},none"] < 1
    command = [
        sys.executable, "-m", "lmms_eval", "--model", "prunesid", "--batch_size", "2",
        "--model_args", ",".join(f"{k}={v}" for k, v in {"pretrained": "tiny", **arm}.items()),
        "--tasks", "pocket_pope,pairs,msvd_qa", "--include_path", "tasks",
        "--output_path", "out", "--log_samples",
    ]  # fmt: skip
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (path,) = (tmp_path / "out").rglob("*results.json")
    results = json.loads(path.read_text())["results"]
    assert 0 <= results["pocket_pope"]["pope_accuracy,none"] <= 1
    for name, metrics in expected.items():
        (path,) = (tmp_path / "out").rglob(f"*_samples_{name}.jsonl")
        lines = map(json.loads, path.read_text().splitlines())
        assert {str(each["doc_id"]): each["filtered_resps"] for each in lines} == said[name]
        assert {key: results[name][key] for key in metrics} == pytest.approx(metrics)
