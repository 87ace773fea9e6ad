"""The runs of an ablation, made from its scores and pictures: one per arm, one for the comparison.

The figure and the table belong to the run of the comparison alone: they change with every arm that
is added, and an arm's own run should not.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from prunesid.study.ablation import Ablation
from prunesid.study.arm import VANILLA, Arm
from prunesid.study.config import Study
from prunesid.study.measurement import Measured, measure
from prunesid.study.statistics import interval
from prunesid.tracking import Run

ARM_STAGE = "score"
COMPARISON_STAGE = "compare"
MAX_DISAGREEMENTS = 200
KEY = ["benchmark", "question_id"]


def runs_of(
    study: Study,
    ablation: Ablation,
    scores: pd.DataFrame,
    files: Mapping[str, Path],
    environment: Mapping[str, Any],
    limit: int = MAX_DISAGREEMENTS,
) -> list[Run]:
    """One run per arm and, last, one for the comparison, which carries `files` {title: path}.

    scores: the per-question tables of the ablation's benchmarks, one below the other, with all of
    their columns. Summary metrics are '<benchmark>/<name>': value, ci_low, ci_high, tokens, and
    against the reference arm diff, diff_low, diff_high. limit: rows of the table of predictions.
    ValueError where an arm's scores are missing.
    """
    arms = ablation.arms
    benchmarks = study.benchmarks_of(ablation)
    measured = [measure(scores, b, [arm.name for arm in arms], study.bootstrap) for b in benchmarks]
    common = {
        "model": study.model_name,
        "ablation": ablation.name,
        "benchmarks": [b.name for b in benchmarks],
        "batch_size": study.batch_size,
        "dtype": study.dtype,
        "limit": study.limit,
        "bootstrap": study.bootstrap,
    }
    references = reference_arms(ablation)
    runs = []
    for arm in arms:
        reference = references[arm.name]
        summary: dict[str, Any] = {}
        for m in measured:
            summary |= _metrics(m, arm, reference, study.bootstrap.confidence)
        runs.append(
            Run(
                name=arm.name,
                group=ablation.name,
                job_type=ARM_STAGE,
                tags=tags_of(arm, study.model_name),
                config=common | {"arm": arm.resolved(), "seed": arm.seed},
                summary=summary,
                predictions=None
                if reference is None
                else disagreements(scores, arm, reference, limit),
                environment=environment,
            )
        )
    comparison = Run(
        name=ablation.name,
        group=ablation.name,
        job_type=COMPARISON_STAGE,
        tags=(study.model_name,),
        config=common | {"title": ablation.title, "reference": ablation.reference.as_dict()},
        summary={"arms": len(arms)}
        | {f"{m.benchmark.name}/questions": m.scores.shape[1] for m in measured}
        | {f"{m.benchmark.name}/images": m.tokens.shape[1] for m in measured},
        files=files,
        environment=environment,
    )
    return [*runs, comparison]


def reference_arms(ablation: Ablation) -> dict[str, Arm | None]:
    """What each arm's answers are held against, by the arm's name.

    The arm of the reference row in the same column (of the same seed where there is one); for an
    arm of the reference row the all-token arm; for that arm nothing.
    """
    by_column = {c.column: c.arms for c in ablation.cells if c.row == ablation.reference}
    found: dict[str, Arm | None] = {}
    for cell in ablation.cells:
        rivals = {rival.seed: rival for rival in by_column[cell.column]}
        for arm in cell.arms:
            rival = rivals.get(arm.seed, by_column[cell.column][0])
            found.setdefault(arm.name, VANILLA if cell.row == ablation.reference else rival)
    return found | {VANILLA.name: None}


def tags_of(arm: Arm, model: str) -> tuple[str, ...]:
    """Model, method, budget and, where the method has them, preset and grouping."""
    resolved = arm.resolved()
    budget = "all tokens" if arm.is_vanilla else f"budget {arm.budget}"
    choices = (str(resolved[name]) for name in ("preset", "grouping") if resolved.get(name))
    return tuple(dict.fromkeys((model, arm.method, budget, *choices)))


def disagreements(scores: pd.DataFrame, arm: Arm, reference: Arm, limit: int) -> pd.DataFrame:
    """Questions that two arms answer differently: benchmark, question, both answers, both scores.

    At most `limit` rows, spread evenly over the benchmarks, first those where the scores differ.
    """
    own = scores[scores["arm"] == arm.name]
    columns = [*KEY, "answer", "score"]
    other = scores.loc[scores["arm"] == reference.name, columns]
    pairs = own.merge(other, on=KEY, suffixes=("", "_reference"), validate="one_to_one")
    pairs = pairs[pairs["answer"] != pairs["answer_reference"]]
    pairs = pairs.assign(
        reference=reference.name,
        same=np.isclose(pairs["score"], pairs["score_reference"]),
    ).sort_values(["benchmark", "same"], kind="stable")
    # The place within the own benchmark first, so that a cut leaves as many of each.
    place = pairs.groupby("benchmark").cumcount()
    chosen = pairs.assign(place=place).sort_values(["place", "benchmark"]).head(limit)
    shown = ["question_id", "image_id", "category", "question", "target", "answer"]
    shown = ["benchmark", *shown, "answer_reference", "score", "score_reference", "reference"]
    return chosen.sort_values(["benchmark", "place"])[shown].reset_index(drop=True)


def _metrics(
    measured: Measured, arm: Arm, reference: Arm | None, confidence: float
) -> dict[str, float]:
    (at,) = measured.at([arm.name])
    low, high = interval(measured.replicates[at], confidence)
    metrics = {
        "value": measured.values[at],
        "ci_low": low,
        "ci_high": high,
        "tokens": measured.tokens[at].mean(),
    }
    if reference is not None:
        (other,) = measured.at([reference.name])
        drawn = measured.replicates[at] - measured.replicates[other]
        low, high = interval(drawn, confidence)
        difference = measured.values[at] - measured.values[other]
        metrics |= {"diff": difference, "diff_low": low, "diff_high": high}
    return {f"{measured.benchmark.name}/{name}": float(v) for name, v in metrics.items()}
