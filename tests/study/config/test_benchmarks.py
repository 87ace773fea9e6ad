"""lmms-eval's benchmarks, asked and scored as it does, on made-up documents of their shape."""

from __future__ import annotations

from pathlib import Path

import datasets
import pandas as pd
import pytest
from builders.lmms_docs import MADE
from builders.tiny_llava import random_images

from prunesid.core.questions import Answer, Stopping
from prunesid.lmms.grades import grades
from prunesid.lmms.scoring import score, score_table
from prunesid.lmms.tasks import LmmsTask, load_task
from prunesid.study.analysis.metrics import image_sums, statistic
from prunesid.study.config.documents import check, read_document, read_schema
from prunesid.study.config.study import Benchmark

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "configs" / "benchmarks"
VIDEO = ("tgif_qa", "msvd_qa", "msrvtt_qa", "activitynet_qa")

# Columns of the paper's tables that are no scores of benchmarks.
OTHER_COLUMNS = {"average", "pope_f1", "prefill_ms", "total_ms"}


def shipped(path: Path) -> Benchmark:
    document = check(read_document(path), read_schema("benchmark"))
    return Benchmark(name=path.stem, **document)


SHIPPED = {
    path.stem: shipped(path)
    for path in sorted(FOLDER.glob("*.yaml"))
    if not path.stem.startswith("pocket_")
}
IMAGES = [name for name in SHIPPED if name not in VIDEO]
UNJUDGED = [name for name in IMAGES if name != "llava_bench"]
# lmms-eval's metric in units of the statistic's value; MME's two metrics are added.
UNITS = {"mmbench": 100.0, "llava_bench": 100.0}
JUDGED = "llava_bench"


@pytest.fixture(scope="module")
def tasks(tmp_path_factory) -> dict[str, LmmsTask]:
    folder = tmp_path_factory.mktemp("made")
    load = datasets.load_dataset

    def load_dataset(path, *arguments, **options):
        if "GQA" not in str(path):
            return load(path, *arguments, **options)
        # GQA's images are a data set of their own.
        table = datasets.Dataset.from_dict({"id": ["n1"], "image": random_images(1)})
        return table.cast_column("image", datasets.Image())

    patch = pytest.MonkeyPatch()
    patch.setattr(datasets, "load_dataset", load_dataset)
    loaded = {}
    for name in {SHIPPED[name].task for name in IMAGES}:
        loaded[name] = load_task(name, data=MADE[name].write(folder / f"{name}.parquet"))
    patch.undo()
    return loaded


def scored(task: LmmsTask, benchmark: Benchmark, replies: list[str]):
    questions = task.questions()
    answers = [
        Answer(question.id, question.image_id, reply, 64.0, text=8)
        for question, reply in zip(questions, replies, strict=True)
    ]
    found = score(task, {a.question_id: a.answer for a in answers}, benchmark.metric)
    return found, score_table(found, questions, answers, benchmark=benchmark.name, arm="some")


def value(table: pd.DataFrame, benchmark: Benchmark) -> float:
    chosen = statistic(benchmark.statistic)
    image, names = pd.factorize(table["image_id"])
    return float(chosen.value(image_sums(table, chosen, image, len(names)).sum(axis=0)))


def metric(found, benchmark: Benchmark) -> float:
    if benchmark.statistic == "mme":
        return (
            found.metrics["mme_perception_score,none"] + found.metrics["mme_cognition_score,none"]
        )
    return found.metrics[f"{benchmark.metric},none"] / UNITS.get(benchmark.name, 1.0)


@pytest.mark.parametrize("name", UNJUDGED)
def test_right_replies_score_fully_and_wrong_ones_not_at_all(tasks, name):
    benchmark = SHIPPED[name]
    task, made = tasks[benchmark.task], MADE[benchmark.task]
    found, table = scored(task, benchmark, list(made.right))
    assert set(table["score"]) == {1.0}
    assert value(table, benchmark) == metric(found, benchmark) == (400 if name == "mme" else 1)
    found, table = scored(task, benchmark, list(made.wrong))
    assert set(table["score"]) == {0.0}
    assert value(table, benchmark) == metric(found, benchmark) == 0


@pytest.mark.parametrize("name", UNJUDGED)
def test_the_statistic_is_lmms_evals_metric(tasks, name):
    benchmark = SHIPPED[name]
    made = MADE[benchmark.task]
    for wrong in range(len(made.docs)):
        replies = list(made.right)
        replies[wrong] = made.wrong[wrong]
        found, table = scored(tasks[benchmark.task], benchmark, replies)
        # MMMU's accuracy comes rounded to five digits.
        assert value(table, benchmark) == pytest.approx(metric(found, benchmark), abs=1e-5)
        assert 0 < value(table, benchmark) <= (400 if name == "mme" else 1)


def test_a_mmbench_question_needs_all_its_rotations(tasks):
    benchmark, made = SHIPPED["mmbench"], MADE["mmbench_en_dev_static"]
    for wrong, expected in ((0, [0, 1]), (1, [0, 1]), (2, [1, 0]), (3, [1, 0])):
        replies = list(made.right)
        replies[wrong] = made.wrong[wrong]
        _, table = scored(tasks[benchmark.task], benchmark, replies)
        assert table["question_id"].tolist() == ["0", "2"]
        assert table["score"].tolist() == expected


def test_seed_counts_the_questions_of_its_metric(tasks):
    made = MADE["seedbench"]
    replies = [made.wrong[0], made.right[1], made.right[2]]
    _, every = scored(tasks["seedbench"], SHIPPED["seed"], replies)
    _, images = scored(tasks["seedbench"], SHIPPED["seed_image"], replies)
    assert every["score"].tolist() == [0, 1, 1]
    assert images["score"].tolist() == [0, 1]
    assert every["category"].tolist() == ["image", "image", "video"]


@pytest.mark.parametrize(
    ("name", "reply"),
    [("vqav2", "netting"), ("textvqa", "nous les gosses"), ("vizwiz", "unsuitable")],
)
def test_people_who_disagree_give_part_of_a_point(tasks, name, reply):
    benchmark = SHIPPED[name]
    replies = [reply, *MADE[benchmark.task].wrong[1:]]
    _, table = scored(tasks[benchmark.task], benchmark, replies)
    # One of ten said it: 1/3 for each of the nine others left in, 0 for that one left out.
    assert table["score"].tolist() == pytest.approx([0.3, 0.0])


@pytest.mark.parametrize("name", sorted({SHIPPED[name].task for name in IMAGES}))
def test_questions_name_what_they_show(tasks, name):
    task, made = tasks[name], MADE[name]
    questions = task.questions()
    assert len(questions) == len(made.docs)
    places = list(made.images or range(len(made.docs))) if made.columns else [0] * len(questions)
    for first, place in zip(questions, places, strict=True):
        Stopping.of(first.gen_kwargs)
        assert first.target
        shown = task.media(first)
        assert all(picture.mode == "RGB" for picture in shown)
        for second, other in zip(questions, places, strict=True):
            if name not in ("mmmu_val", "seedbench"):
                assert (first.image_id == second.image_id) == (place == other)
    counts = [len(task.media(question)) for question in questions]
    assert counts == {"mmmu_val": [1, 2, 2, 1], "seedbench": [1, 1, 3]}.get(name, [1] * len(counts))
    if name in ("mmmu_val", "seedbench"):
        assert len({question.image_id for question in questions}) == len(questions)


def test_targets_are_what_most_people_said(tasks):
    assert [q.target for q in tasks["vqav2_val"].questions()] == ["net", "2"]
    assert [q.target for q in tasks["textvqa_val"].questions()] == ["dakota", "stop"]
    assert [q.target for q in tasks["vizwiz_vqa_val"].questions()] == ["soda can", "unanswerable"]


def test_ocr_tokens_stand_in_one_of_textvqas_prompts(tasks):
    with_tokens, without = (
        tasks[name].questions()[0].context for name in ("textvqa_val_ocr", "textvqa_val")
    )
    tokens = "\nReference OCR token: DAKOTA, DIGITAL"
    assert tokens in with_tokens
    assert with_tokens.replace(tokens, "") == without


class FakeJudge:
    """Marks by the reply; None where it fails."""

    def __init__(self, marks):
        self.marks = marks

    def __call__(self, *, prediction, **_):
        from types import SimpleNamespace

        marks = self.marks[prediction]
        return SimpleNamespace(raw_output="so be it", metadata={"scores": marks or [-1, -1]})


def judge(task: LmmsTask, monkeypatch, marks) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "made up")
    functions = task.task.config.process_results.__globals__
    monkeypatch.setitem(functions, "_get_pipeline", lambda: FakeJudge(marks))


def test_llava_bench_is_the_ratio_of_the_judges_marks(tasks, monkeypatch):
    benchmark = SHIPPED[JUDGED]
    task = tasks[benchmark.task]
    judge(task, monkeypatch, {"good": [8, 6], "bad": [9, 2]})
    found, table = scored(task, benchmark, ["good", "bad"])
    assert table["score"].tolist() == pytest.approx([6 / 8, 2 / 9])
    assert table["weight"].tolist() == [8, 9]
    assert value(table, benchmark) == pytest.approx(8 / 17)
    assert metric(found, benchmark) == pytest.approx(8 / 17, abs=1e-3)
    conversation = score(task, {"0": "good", "1": "bad"}, "gpt_eval_llava_conv")
    assert conversation.by_question == {"0": 0.75}


def test_a_judge_that_fails_is_an_error(tasks, monkeypatch):
    task = tasks[SHIPPED[JUDGED].task]
    judge(task, monkeypatch, {"good": [8, 6], "bad": None})
    with pytest.raises(ValueError, match="no marks for the question 'Describe this photo.'"):
        scored(task, SHIPPED[JUDGED], ["good", "bad"])


def test_a_judge_without_a_key_is_an_error_that_names_what_does_without(tasks, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("API_TYPE", raising=False)
    with pytest.raises(ValueError, match=r"set OPENAI_API_KEY .* llava_bench_local"):
        scored(tasks[SHIPPED[JUDGED].task], SHIPPED[JUDGED], ["good", "bad"])


def test_metrics_without_a_number_per_question_are_refused():
    samples = [{"doc_id": 0, "submission": {"question_id": 1, "answer": "yes"}}]
    with pytest.raises(ValueError, match="keep question_id, answer has no score per question"):
        grades("vqav2_test", "submission", samples)
    with pytest.raises(ValueError, match="none of 1 questions counts toward exact_match"):
        grades("gqa", "exact_match", samples)


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_benchmark_fits_its_task_and_the_paper(tasks, name):
    benchmark = SHIPPED[name]
    columns = set(pd.read_csv(ROOT / "configs" / "paper" / "results.csv")["benchmark"])
    assert benchmark.paper_column is None or benchmark.paper_column in columns
    if name not in VIDEO:
        assert benchmark.metric in tasks[benchmark.task].metrics


def test_the_benchmarks_of_the_paper_are_all_there():
    columns = set(pd.read_csv(ROOT / "configs" / "paper" / "results.csv")["benchmark"])
    assert {b.paper_column for b in SHIPPED.values()} - {None} == columns - OTHER_COLUMNS
