"""One number per question, from the results of lmms-eval's `process_results` per document.

For a metric that is a mean, the result is a number, or has one in the field `score`. For other
metrics the result is the input of their aggregation. These are graded question by question with
lmms-eval's own functions, so that the study's statistic over questions equals lmms-eval's metric.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Sample = Mapping[str, Any]
_MME = ("mme_perception_score", "mme_cognition_score")
# MMBench numbers the rotations of a question's options by adding millions to its index.
_ROTATION = 1_000_000
# The MMBench task of lmms-eval that reads the option without a judge.
_CIRCULAR = "mmbench_en_dev_static"
_JUDGED = ("gpt_eval", "llm_as_judge")
_KEYS = {"openai": "OPENAI_API_KEY", "azure": "AZURE_API_KEY"}
# Stands for the marks of metrics of LLaVA-Bench that a question does not belong to.
_OF_ANOTHER_KIND = -999


@dataclass(frozen=True)
class Grade:
    """The `score` of a question, and its `weight` in a weighted mean."""

    score: float
    weight: float = 1.0


def grades(task: str, metric: str, samples: Sequence[Sample]) -> dict[str, Grade]:
    """Grades, by document number, of the questions that count toward `metric`, in their order.

    ValueError if a sample holds no number for its metric, or none counts.
    """
    rule = _circular if task == _CIRCULAR else _RULES.get(metric, _each(_plain))
    found = rule(metric, samples)
    if not found:
        raise ValueError(f"none of {len(samples)} questions counts toward {metric}")
    return found


def judged(task: str, metrics: Sequence[str]) -> list[str]:
    """The metrics of a task that a language model decides."""
    return [name for name in metrics if task != _CIRCULAR and name.startswith(_JUDGED)]


def check_judge(task: str, metrics: Sequence[str]) -> None:
    """Raise ValueError if a language model decides one of the metrics and its API has no key.

    lmms-eval would try for minutes and then score every answer as wrong.
    """
    asked = judged(task, metrics)
    key = _KEYS.get(os.environ.get("API_TYPE", "openai").lower())
    if asked and key and not os.environ.get(key):
        raise ValueError(
            f"a language model decides {', '.join(asked)} of {task}: set {key} (MODEL_VERSION "
            "chooses the judge, API_TYPE and OPENAI_API_URL where it is), or take a benchmark that "
            "is scored without a judge: mmbench for MMBench, llava_bench_local for LLaVA-Bench, "
            "activitynet_qa for ActivityNet-QA"
        )


def _each(grade: Callable[[Any], Grade | None]) -> Callable[..., dict[str, Grade]]:
    """Grade every question by itself; questions without the metric or a grade do not count."""

    def rule(metric: str, samples: Sequence[Sample]) -> dict[str, Grade]:
        found = {str(s["doc_id"]): grade(s[metric]) for s in samples if metric in s}
        return {number: each for number, each in found.items() if each is not None}

    return rule


def _plain(value: Any) -> Grade:
    if isinstance(value, dict) and "score" not in value:
        raise ValueError(
            f"a metric whose questions keep {', '.join(value)} has no score per question; choose "
            "one that keeps a number or a field 'score'"
        )
    return Grade(float(value["score"] if isinstance(value, dict) else value))


def _choice(value: Any) -> Grade:
    """SEED-Bench: the letter is the right one, whatever its case."""
    from lmms_eval.tasks.seedbench.utils import seed_aggregation_result

    return Grade(seed_aggregation_result([value]))


def _mmmu(value: Any) -> Grade:
    """MMMU: the parsed answer is the option's letter, or holds one of the accepted answers."""
    from lmms_eval.tasks.mmmu.utils import evaluate_mmmu

    _, metrics = evaluate_mmmu([value])
    return Grade(metrics["acc"])


def _comparison(value: Any) -> Grade | None:
    """LLaVA-Bench: the judge's marks, the model's relative to the reference answer's."""
    reference, given = value["scores"]
    if _OF_ANOTHER_KIND in (reference, given):
        return None
    if reference <= 0 or given < 0:
        raise ValueError(
            f"the judge gave no marks for the question {value['question']!r}; it said: "
            f"{value['review']}"
        )
    return Grade(given / reference, reference)


def _mme(metric: str, samples: Sequence[Sample]) -> dict[str, Grade]:
    """MME: questions on perception and on cognition count; categories tell them apart."""
    return {str(s["doc_id"]): _plain(next(s[name] for name in _MME if name in s)) for s in samples}


def _circular(metric: str, samples: Sequence[Sample]) -> dict[str, Grade]:
    """MMBench: one grade per question, right if it is in every rotation of its options."""
    import pandas as pd
    from lmms_eval.tasks.mmbench.en_utils import mmbench_evaluator

    rotations: dict[int, list[Any]] = {}
    for sample in samples:
        value = sample[metric]
        rotations.setdefault(int(value["index"]) % _ROTATION, []).append(value)
    found = {}
    for sample in samples:
        index = int(sample[metric]["index"])
        if index < _ROTATION:
            rows = pd.DataFrame(rotations[index]).astype({"prediction": str})
            right = dict(zip(rows["index"], rows["answer"], strict=True))
            hit = mmbench_evaluator.eval_sub_data(rows, right, static_only=True)
            found[str(sample["doc_id"])] = Grade(float(hit))
    return found


_RULES: dict[str, Callable[[str, Sequence[Sample]], dict[str, Grade]]] = {
    **dict.fromkeys(_MME, _mme),
    **dict.fromkeys(("seed_image", "seed_video", "seed_all"), _each(_choice)),
    "mmmu_acc": _each(_mmmu),
    **dict.fromkeys(
        (f"gpt_eval_llava_{kind}" for kind in ("all", "conv", "detail", "complex")),
        _each(_comparison),
    ),
}
