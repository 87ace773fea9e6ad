"""Scores of stored answers by lmms-eval's own functions.

A model that only replays answers goes through `simple_evaluate`, so no benchmark's scoring is
reimplemented here.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from lmms_eval.api.instance import Instance
from lmms_eval.api.model import lmms
from lmms_eval.evaluator import simple_evaluate
from lmms_eval.tasks import TaskManager

from prunesid.core.questions import Answer, Question
from prunesid.core.registry import unknown
from prunesid.lmms.grades import check_judge, grades
from prunesid.lmms.tasks import LmmsTask

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    "benchmark",
    "arm",
    "question_id",
    "image_id",
    "category",
    "question",
    "answer",
    "target",
    "score",
    "weight",
    "tokens",
)


@dataclass(frozen=True)
class Scores:
    """The scores of one arm on one task.

    metrics      all metrics that are numbers, by lmms-eval's keys ("exact_match,none")
    by_question  the score of each question that counts toward the metric, in the task's order
    weights      the weights of these questions; 1 except for metrics that are weighted means
    """

    metrics: dict[str, float]
    by_question: dict[str, float]
    weights: dict[str, float]


class Replay(lmms):
    """An lmms-eval model that gives the stored answer of each document."""

    def __init__(self, answers: Mapping[str, str]) -> None:
        super().__init__()
        self._answers = answers

    def generate_until(self, requests: list[Instance]) -> list[str]:
        numbers = [str(request.args[3]) for request in requests]
        missing = [number for number in numbers if number not in self._answers]
        if missing:
            raise ValueError(
                f"{len(missing)} of {len(numbers)} questions have no answer, the first is "
                f"{missing[0]}"
            )
        return [self._answers[number] for number in numbers]

    def clean(self) -> None:
        """Do nothing, as there is nothing to free; lmms-eval's own way is slower than scoring."""

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        raise NotImplementedError("stored answers have no likelihoods")

    def generate_until_multi_round(self, requests: list[Instance]) -> list[str]:
        raise NotImplementedError("stored answers belong to single-round questions")


def score(
    task: LmmsTask,
    answers: Mapping[str, str],
    metric: str,
    questions: Sequence[Question] | None = None,
) -> Scores:
    """lmms-eval's metrics for answers by question id, and each question's own score.

    questions  those of the task that are scored, if not all

    `metric` names the score kept per question, as "pope_f1_score" or "pope_f1_score,none". The task
    is not rebuilt, so a process may score any number of arms. ValueError on an unknown metric, a
    missing answer, or a metric whose judge cannot be asked.
    """
    name = metric.partition(",")[0]
    if name not in task.metrics:
        raise ValueError(unknown(f"metric of {task.name}", name, task.metrics))
    check_judge(task.name, task.metrics)
    if questions is not None:
        task = task.only(questions)
        answers = {str(n): answers[q.id] for n, q in enumerate(questions) if q.id in answers}
    with TemporaryDirectory() as folder:
        results = simple_evaluate(
            model=Replay(answers),
            tasks=[task.task],
            task_manager=TaskManager("WARNING", include_defaults=False),
            limit=task.limit,
            bootstrap_iters=0,
            log_samples=True,
            process_docs_parallel=1,
            # With media, every document's image would be decoded again. Some tasks also write
            # their answers as files for a server; here they go to a temporary folder.
            cli_args=argparse.Namespace(process_with_media=False, output_path=folder),
        )
    found = grades(task.name, name, results["samples"][task.name])
    if questions is not None:
        found = {questions[int(number)].id: grade for number, grade in found.items()}
    return Scores(
        metrics={
            key: float(value)
            for key, value in results["results"][task.name].items()
            if "," in key and "_stderr" not in key and isinstance(value, Real)
        },
        by_question={number: grade.score for number, grade in found.items()},
        weights={number: grade.weight for number, grade in found.items()},
    )


def score_table(
    scores: Scores,
    questions: Sequence[Question],
    answers: Sequence[Answer],
    *,
    benchmark: str,
    arm: str,
) -> pd.DataFrame:
    """One row per question that counts, with the columns COLUMNS, in the order of `questions`."""
    import pandas as pd

    given = {answer.question_id: answer for answer in answers}
    rows = [
        (
            benchmark,
            arm,
            question.id,
            question.image_id,
            question.category,
            question.context,
            given[question.id].answer,
            question.target,
            scores.by_question[question.id],
            scores.weights[question.id],
            given[question.id].tokens,
        )
        for question in questions
        if question.id in scores.by_question
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))
