"""All results, question by question, in the field's shared form: Every Eval Ever's schema.

    write_evaluations(study, {"gqa": Path("scores.parquet")}, Path("export"))

An arm on a benchmark is one evaluation: data/prunesid/<developer>/<model>/<uuid>.json has the
value with its interval, <uuid>_samples.jsonl beside it a line per question, and index.csv says
which is which. The schema is that of https://github.com/evaleval/every_eval_ever, in the version
`VERSION`. The same results give the same bytes: names follow from the content, dates are those of
the scores.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pandas as pd

from prunesid.core.files import atomic
from prunesid.pocket import EMBEDDED
from prunesid.pocket.benchmarks import BENCHMARKS
from prunesid.study.analysis.measurement import Measured, concat_scores, measure
from prunesid.study.analysis.statistics import interval
from prunesid.study.config.arm import Arm
from prunesid.study.config.study import Benchmark, Study

VERSION = "0.3.0"
COLLECTION = DEVELOPER = "prunesid"
UNKNOWN = "unknown"
INDEX = "index.csv"
INDEX_COLUMNS = ("benchmark", "arm", "value", "unit", "questions", "evaluation")
# The metrics by the names under which results of other sources are joined; ours have a prefix.
METRICS = {
    "mean": ("accuracy", "accuracy"),
    "f1": ("f1", "f1"),
    "weighted": ("prunesid.relative_mark", "score"),
    "mme": ("mme.score", "score"),
}
# Points per category of MME: accuracy and accuracy+.
MME_POINTS = 200.0


@dataclass(frozen=True)
class Model:
    """A model as the schema names it: its `id` is '<developer>/<name>'."""

    developer: str
    name: str
    embedded: bool

    @property
    def id(self) -> str:
        return f"{self.developer}/{self.name}"


def model_of(study: Study) -> Model:
    """The study's model: ours, one of the hub, or a local folder, whose developer is unknown."""
    if study.model in EMBEDDED:
        return Model(DEVELOPER, study.model, embedded=True)
    developer, slash, name = study.model.partition("/")
    hub = bool(slash) and "/" not in name and re.fullmatch(r"[\w.-]+/[\w.-]+", study.model)
    if hub and not Path(study.model).is_dir():
        return Model(developer, name, embedded=False)
    return Model(UNKNOWN, study.model_name, embedded=False)


def write_evaluations(study: Study, scores: Mapping[str, Path], folder: Path) -> None:
    """Write all evaluations of a study below `folder`.

    scores  {benchmark: its per-question table}; lmms-eval's metrics lie beside it as .json
    """
    lines = []
    for benchmark in study.benchmarks:
        arms = study.arms_of(benchmark.name)
        path = scores[benchmark.name]
        table = pd.read_parquet(path)
        table.attrs = concat_scores([table]).attrs
        measured = measure(table, benchmark, [arm.name for arm in arms], study.bootstrap)
        metrics = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        date = str(int(path.stat().st_mtime))
        by_arm = dict(iter(table.groupby("arm", sort=False)))
        for place, arm in enumerate(arms):
            evaluation = Evaluation(study, benchmark, arm, date, metrics[arm.name])
            lines.append(evaluation.write(measured, place, by_arm[arm.name], folder))
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([INDEX_COLUMNS, *lines])
    _write(folder / INDEX, stream.getvalue())


@dataclass(frozen=True)
class Evaluation:
    """An arm on a benchmark; `metrics` are lmms-eval's own, `date` seconds since 1970 as text."""

    study: Study
    benchmark: Benchmark
    arm: Arm
    date: str
    metrics: Mapping[str, float]

    @property
    def id(self) -> str:
        name = f"{self.study.model_name}-{self.arm.name}"
        return f"{self.benchmark.name}/{model_of(self.study).id}/{name}/{self.date}"

    @property
    def uuid(self) -> str:
        """A name of the form that the schema asks for, from what is evaluated."""
        digest = hashlib.sha256(self.id.encode()).digest()
        return str(uuid.UUID(bytes=digest[:16], version=4))

    def write(
        self, measured: Measured, place: int, asked: pd.DataFrame, folder: Path
    ) -> tuple[Any, ...]:
        """Write both files; the evaluation's line of the index.

        place  the arm's among those of `measured`
        asked  its questions, with answers and scores
        """
        model = model_of(self.study)
        stem = f"data/{COLLECTION}/{model.developer}/{model.name}/{self.uuid}"
        samples = "".join(
            f"{json.dumps(line, ensure_ascii=False)}\n" for line in self._samples(asked)
        )
        _write(folder / f"{stem}_samples.jsonl", samples)
        detailed = {
            "format": "jsonl",
            "file_path": f"{stem}_samples.jsonl",
            "hash_algorithm": "sha256",
            "checksum": hashlib.sha256(samples.encode()).hexdigest(),
            "total_rows": len(asked),
        }
        result = self._result(measured, place, asked)
        document = {**self._head(model), "evaluation_results": [result]}
        document["detailed_evaluation_results"] = detailed
        _write(folder / f"{stem}.json", json.dumps(document, indent=1, ensure_ascii=False) + "\n")
        unit = result["metric_config"]["metric_unit"]
        score = result["score_details"]["score"]
        return self.benchmark.name, self.arm.name, score, unit, len(asked), f"{stem}.json"

    def _head(self, model: Model) -> dict[str, Any]:
        return {
            "schema_version": VERSION,
            "evaluation_id": self.id,
            "evaluation_timestamp": self.date,
            "retrieved_timestamp": self.date,
            "source_metadata": {
                "source_name": "prunesid",
                "source_type": "evaluation_run",
                "source_organization_name": self.study.wandb.entity or UNKNOWN,
                "evaluator_relationship": "first_party" if model.embedded else "third_party",
                "additional_details": {"study": self.study.title},
            },
            "eval_library": {
                "name": "lmms_eval",
                "version": _version("lmms-eval"),
                "additional_details": {
                    "plugin": "prunesid",
                    "plugin_version": _version("prunesid"),
                },
            },
            "model_info": {
                "name": model.name,
                "id": model.id,
                "developer": model.developer,
                "inference_engine": {"name": "transformers", "version": _version("transformers")},
                "additional_details": {
                    "deployment_type": "self_deployed",
                    "model_availability": "open_weights",
                },
            },
        }

    def _pruning(self) -> dict[str, str]:
        """How visual tokens are chosen: 'pruning.method', 'pruning.budget', ..."""
        settings = {"arm": self.arm.name, **self.arm.resolved()}
        return {f"pruning.{name}": _text(value) for name, value in settings.items()}

    def _result(self, measured: Measured, place: int, asked: pd.DataFrame) -> dict[str, Any]:
        statistic, scale = measured.statistic, measured.statistic.scale
        confidence = self.study.bootstrap.confidence
        low, high = interval(measured.replicates[place], confidence)
        identity, kind = METRICS[statistic.name]
        shares = statistic.unit == "%"
        categories = asked["category"].nunique()
        rendered = self.benchmark.task in BENCHMARKS
        return {
            "evaluation_result_id": statistic.name,
            "evaluation_name": self.benchmark.name,
            "source_data": {
                "dataset_name": self.benchmark.task,
                "source_type": "other",
                "additional_details": {
                    "title": self.benchmark.title,
                    "lmms_eval_task": self.benchmark.task,
                    "origin": "rendered by prunesid"
                    if rendered
                    else "as lmms-eval's task loads it",
                    "images": str(asked["image_id"].nunique()),
                },
            },
            "metric_config": {
                "evaluation_description": self.benchmark.description,
                "metric_id": identity,
                "metric_name": statistic.label,
                "metric_kind": kind,
                "metric_unit": "proportion" if shares else statistic.unit,
                "lower_is_better": False,
                "score_type": "continuous",
                "min_score": 0.0,
                "max_score": 1.0 if shares else MME_POINTS * categories,
            },
            "score_details": {
                "score": float(measured.values[place] / scale),
                "uncertainty": {
                    "confidence_interval": {
                        "lower": float(low / scale),
                        "upper": float(high / scale),
                        "confidence_level": confidence,
                        "method": "bootstrap of whole images, percentiles",
                    },
                    "num_samples": len(asked),
                    "num_bootstrap_samples": self.study.bootstrap.resamples,
                },
                "details": {
                    "visual_tokens_mean": _text(float(asked["tokens"].mean())),
                    **{f"lmms_eval.{name}": _text(v) for name, v in self.metrics.items()},
                },
            },
            "generation_config": {
                "generation_args": {"temperature": 0.0},
                "additional_details": self._pruning(),
            },
        }

    def _samples(self, asked: pd.DataFrame) -> Iterable[dict[str, Any]]:
        model = model_of(self.study).id
        for line in asked.itertuples():
            question, answer, target = str(line.question), str(line.answer), str(line.target)
            yield {
                "schema_version": VERSION,
                "evaluation_id": self.id,
                "model_id": model,
                "evaluation_name": self.benchmark.name,
                "evaluation_result_id": self.benchmark.statistic,
                "sample_id": str(line.question_id),
                "sample_hash": _sample_hash(question, [target]),
                "interaction_type": "single_turn",
                "input": {"raw": question, "reference": [target]},
                "output": {"raw": [answer]},
                "answer_attribution": [
                    {
                        "turn_idx": 0,
                        "source": "output.raw",
                        "extracted_value": answer,
                        "extraction_method": self.benchmark.metric,
                        "is_terminal": True,
                    }
                ],
                "evaluation": {"score": float(line.score), "is_correct": bool(line.score >= 1)},
                "metadata": {
                    "image_id": str(line.image_id),
                    "category": str(line.category),
                    "weight": _text(float(line.weight)),
                    "visual_tokens": _text(float(line.tokens)),
                },
            }


def _sample_hash(raw: str, reference: Sequence[str]) -> str:
    """The schema's name of a question, by which other models' answers to it are found."""
    text = json.dumps(
        {"raw": raw, "reference": list(reference)}, sort_keys=True, separators=(",", ":")
    )
    return hashlib.sha256(text.encode()).hexdigest()


def _text(value: Any) -> str:
    """A detail, which the schema wants as text."""
    return value if isinstance(value, str) else json.dumps(value)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return UNKNOWN


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as part:
        part.write_text(text, encoding="utf-8", newline="\n")
