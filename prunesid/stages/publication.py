"""The finished arms and their comparison as runs of an experiment tracker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from prunesid.files import atomic
from prunesid.study.ablation import Ablation
from prunesid.study.arm import ALL_TOKENS, Arm
from prunesid.study.comparison import read_comparison
from prunesid.study.config import Study
from prunesid.study.measurement import Measured, measure
from prunesid.study.statistics import interval
from prunesid.tracking import MAX_PREDICTIONS, Run, Settings
from prunesid.tracking.environment import environment
from prunesid.tracking.publish import publish

_TAGGED = ("method", "budget", "preset", "grouping")
_COLUMNS = ("benchmark", "question_id", "image_id", "category", "question", "target")


def publish_study(
    study: Study, scores: Mapping[str, Path], ablations: Mapping[str, Path], directory: Path,
    output: Path,
) -> str:  # fmt: skip
    """Publish every arm of every ablation; returns what to tell the user.

    scores     {benchmark: per-question table}
    ablations  {ablation: folder with comparison.csv, figure.png and table.html}
    output     text file for the message
    """
    table = pd.concat([pd.read_parquet(p) for p in scores.values()], ignore_index=True)
    surroundings = environment(study.device)
    runs: list[Run] = []
    for name, folder in ablations.items():
        ablation = study.ablation(name)
        runs += arm_runs(study, ablation, table, surroundings)
        runs.append(comparison_run(study, ablation, folder, surroundings))
    settings = Settings(study.wandb.mode, study.wandb.project, study.wandb.entity)
    message = publish(runs, directory, settings).message()
    with atomic(output) as temporary:
        temporary.write_text(message + "\n")
    return message


def arm_runs(
    study: Study, ablation: Ablation, scores: pd.DataFrame, surroundings: Mapping[str, Any]
) -> list[Run]:
    """One run per arm: its resolved settings, scores with intervals, and changed answers."""
    names = [arm.name for arm in ablation.arms]
    measured = [
        measure(scores, benchmark, names, study.bootstrap)
        for benchmark in study.benchmarks_of(ablation)
    ]
    against = _references(ablation)
    return [
        Run(
            name=arm.name,
            group=ablation.name,
            job_type="arm",
            tags=_tags(study, arm),
            config=_config(study, arm),
            summary=_summary(study, measured, arm.name),
            predictions=changed_answers(scores, arm.name, against[arm.name]),
            environment=surroundings,
        )
        for arm in ablation.arms
    ]


def comparison_run(
    study: Study, ablation: Ablation, folder: Path, surroundings: Mapping[str, Any]
) -> Run:
    """The ablation as a whole: its figure, its table, and every line of the comparison."""
    lines = read_comparison(folder / "comparison.csv")
    summary = {
        f"{line['benchmark']}/{line['row']}/{line['column']}": line["value"]
        for line in lines.to_dict("records")
    }
    return Run(
        name="comparison",
        group=ablation.name,
        job_type="comparison",
        tags=(study.model_name,),
        config={"title": ablation.title, "description": ablation.description},
        summary=summary,
        files={"figure": folder / "figure.png", "table": folder / "table.html"},
        environment=surroundings,
    )


def changed_answers(scores: pd.DataFrame, arm: str, reference: str) -> pd.DataFrame:
    """The questions that `arm` and `reference` answer differently, at most MAX_PREDICTIONS of them.

    Of more, an evenly spaced sample is kept, in the order of the benchmarks.
    """
    own, other = (scores[scores["arm"] == name] for name in (arm, reference))
    keys = list(_COLUMNS[:2])
    both = own.merge(other[[*keys, "answer", "score"]], on=keys, suffixes=("", "_reference"))
    changed = both[both["answer"] != both["answer_reference"]]
    shown = [*_COLUMNS, "answer", "score", "answer_reference", "score_reference", "tokens"]
    step = -(-len(changed) // MAX_PREDICTIONS) or 1
    return changed[shown].iloc[::step].reset_index(drop=True)


def _references(ablation: Ablation) -> dict[str, str]:
    """What each arm's answers are set against: the reference row's arm, and that against all tokens."""
    reference = {
        cell.column: cell.arms[0].name for cell in ablation.cells if cell.row == ablation.reference
    }
    against = {ALL_TOKENS: ALL_TOKENS}
    for cell in ablation.cells:
        for arm in cell.arms:
            own = cell.row == ablation.reference
            against[arm.name] = ALL_TOKENS if own else reference[cell.column]
    return against


def _tags(study: Study, arm: Arm) -> tuple[str, ...]:
    resolved = arm.resolved()
    named = (f"{key}-{resolved[key]}" for key in _TAGGED if resolved.get(key) is not None)
    return (study.model_name, *named)


def _config(study: Study, arm: Arm) -> dict[str, Any]:
    running = {"model": study.model, "batch_size": study.batch_size, "dtype": study.dtype}
    return {
        **arm.resolved(),
        **running,
        "images": study.limit,
        "bootstrap": study.bootstrap.resamples,
    }


def _summary(study: Study, measured: Sequence[Measured], arm: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for each in measured:
        (place,) = each.at([arm])
        low, high = interval(each.replicates[place], study.bootstrap.confidence)
        name = each.benchmark.name
        found[name] = float(each.values[place])
        found[f"{name}/low"], found[f"{name}/high"] = low, high
        found[f"{name}/tokens"] = float(each.tokens[place].mean())
    return found
