"""The runs of an ablation, made from its scores and pictures: one per arm, one for the comparison.

The figure and the table belong to the run of the comparison alone: they change with every arm that
is added, and an arm's own run should not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from prunesid.study.analysis.comparison import AVERAGE
from prunesid.study.analysis.measurement import Measured, measure
from prunesid.study.analysis.metrics import Floats
from prunesid.study.analysis.statistics import interval
from prunesid.study.config.ablation import Ablation
from prunesid.study.config.arm import VANILLA, Arm
from prunesid.study.config.study import Study
from prunesid.study.tracking import PICTURE, Histogram, Picture, Run
from prunesid.study.tracking.pictures import Gallery

ARM_STAGE = "score"
COMPARISON_STAGE = "compare"
MAX_DISAGREEMENTS = 200
PICTURES_PER_BENCHMARK = 2
VALUE = ("value", "ci_low", "ci_high")
DIFFERENCE = ("diff", "diff_low", "diff_high")
KEY = ["benchmark", "question_id"]


def runs_of(
    study: Study,
    ablation: Ablation,
    scores: pd.DataFrame,
    files: Mapping[str, Path],
    environment: Mapping[str, Any],
    *,
    gallery: Gallery | None = None,
    information: pd.DataFrame | None = None,
    facts: pd.DataFrame | None = None,
    limit: int = MAX_DISAGREEMENTS,
) -> list[Run]:
    """One run per arm and, last, one for the comparison, which carries `files` {title: path}.

    scores       the per-question tables of the ablation's benchmarks, one below the other, with all
                 of their columns
    gallery      draws what an arm keeps of images on which it differs from its reference
    information  benchmark, image_id, phi: a histogram per benchmark, at the comparison
    facts        arm, benchmark and any numbers about how the arm pruned it
    limit        rows of the table of predictions

    Summary metrics are '<benchmark>/<name>': value, ci_low, ci_high, tokens, and against the
    reference arm diff, diff_low, diff_high; 'average/<name>' is the mean over benchmarks of the
    value as a percentage of the all-token arm's. ValueError where an arm's scores are missing.
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
    places = _places(ablation)
    runs = []
    for arm in arms:
        reference = references[arm.name]
        confidence = study.bootstrap.confidence
        summary: dict[str, Any] = _average(measured, arm, reference, confidence)
        for m in measured:
            summary |= _metrics(m, arm, reference, confidence)
        summary |= _facts(facts, arm)
        predictions: pd.DataFrame | None = None
        pictures: tuple[Picture, ...] = ()
        if reference is not None:
            predictions = disagreements(scores, arm, reference, limit)
            if gallery is not None:
                predictions, pictures = _pictured(predictions, arm, reference, gallery)
        runs.append(
            Run(
                name=arm.name,
                group=ablation.name,
                job_type=ARM_STAGE,
                tags=tags_of(arm, study.model_name),
                config=common
                | places.get(arm.name, {})
                | {"arm": arm.resolved(), "seed": arm.seed}
                | {"reference": None if reference is None else reference.name},
                summary=summary,
                predictions=predictions,
                pictures=pictures,
                histograms=_token_histograms(measured, arm),
                environment=environment,
            )
        )
    comparison = Run(
        name=ablation.name,
        group=ablation.name,
        job_type=COMPARISON_STAGE,
        tags=(study.model_name, "comparison"),
        config=common | {"title": ablation.title, "reference": ablation.reference.as_dict()},
        summary={"arms": len(arms)}
        | {f"{m.benchmark.name}/questions": m.scores.shape[1] for m in measured}
        | {f"{m.benchmark.name}/images": m.tokens.shape[1] for m in measured},
        files=files,
        histograms=_phi_histograms(information, [b.name for b in benchmarks]),
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


def _places(ablation: Ablation) -> dict[str, dict[str, str]]:
    """Row and column of each arm as the table shows them; those of its first cell."""
    found: dict[str, dict[str, str]] = {}
    for cell in ablation.cells:
        for arm in cell.arms:
            place = {"row": cell.row.label, "column": cell.column.label}
            found.setdefault(arm.name, place)
    return found


def _pictured(
    predictions: pd.DataFrame, arm: Arm, reference: Arm, gallery: Gallery
) -> tuple[pd.DataFrame, tuple[Picture, ...]]:
    """Pictures of the first images of each benchmark, and the predictions with their places."""
    pictures: list[Picture] = []
    place: dict[tuple[str, str], int] = {}
    for benchmark, own in predictions.groupby("benchmark", sort=False):
        for line in own.drop_duplicates("image_id").head(PICTURES_PER_BENCHMARK).itertuples():
            name = str(benchmark)
            path = gallery.path(name, line.question_id, line.image_id, (reference, arm))
            caption = (
                f"{name}: {line.question} {reference.name} (left): {line.answer_reference}; "
                f"{arm.name} (right): {line.answer}; correct: {line.target}"
            )
            place[name, line.image_id] = len(pictures)
            pictures.append(Picture(path, " ".join(caption.split())))
    keys = zip(predictions["benchmark"], predictions["image_id"], strict=True)
    column = pd.array([place.get(key) for key in keys], dtype="Int64")
    return predictions.assign(**{PICTURE: column}), tuple(pictures)


def _token_histograms(measured: Sequence[Measured], arm: Arm) -> dict[str, Histogram]:
    """Visual tokens per image of each benchmark on which they differ between images."""
    found = {}
    for m in measured:
        (at,) = m.at([arm.name])
        if np.ptp(m.tokens[at]) > 0:
            found[f"{m.benchmark.name}/tokens_per_image"] = Histogram.of(m.tokens[at].tolist())
    return found


def _phi_histograms(
    information: pd.DataFrame | None, benchmarks: Sequence[str]
) -> dict[str, Histogram]:
    if information is None:
        return {}
    by_benchmark = {name: own["phi"] for name, own in information.groupby("benchmark")}
    return {f"{b}/phi": Histogram.of(by_benchmark[b].tolist()) for b in benchmarks}


def _facts(facts: pd.DataFrame | None, arm: Arm) -> dict[str, float]:
    """'<benchmark>/<fact>' for what is known about the arm's pruning."""
    if facts is None:
        return {}
    own = facts[facts["arm"] == arm.name].drop(columns="arm").set_index("benchmark")
    return {
        f"{benchmark}/{name}": float(value)
        for benchmark, line in own.iterrows()
        for name, value in line.items()
        if pd.notna(value)
    }


def _metrics(
    measured: Measured, arm: Arm, reference: Arm | None, confidence: float
) -> dict[str, float]:
    (at,) = measured.at([arm.name])
    metrics = _interval(measured.values[at], measured.replicates[at], confidence)
    metrics["tokens"] = measured.tokens[at].mean()
    if reference is not None:
        (other,) = measured.at([reference.name])
        difference = measured.values[at] - measured.values[other]
        drawn = measured.replicates[at] - measured.replicates[other]
        metrics |= _interval(difference, drawn, confidence, DIFFERENCE)
    return {f"{measured.benchmark.name}/{name}": float(v) for name, v in metrics.items()}


def _average(
    measured: Sequence[Measured], arm: Arm, reference: Arm | None, confidence: float
) -> dict[str, float]:
    value, drawn = _relative(measured, arm)
    metrics = _interval(value, drawn, confidence)
    if reference is not None:
        other, other_drawn = _relative(measured, reference)
        metrics |= _interval(value - other, drawn - other_drawn, confidence, DIFFERENCE)
    return {f"{AVERAGE}/{name}": float(v) for name, v in metrics.items()}


def _relative(measured: Sequence[Measured], arm: Arm) -> tuple[float, Floats]:
    """Mean over benchmarks of the value in percent of the all-token arm's, and its replicates."""
    values, drawn = [], []
    with np.errstate(divide="ignore", invalid="ignore"):
        for m in measured:
            at, whole = m.at([arm.name, VANILLA.name])
            values.append(100 * m.values[at] / m.values[whole])
            drawn.append(100 * m.replicates[at] / m.replicates[whole])
    return float(np.mean(values)), np.mean(np.stack(drawn), axis=0)


def _interval(
    value: float, drawn: Floats, confidence: float, names: Sequence[str] = VALUE
) -> dict[str, float]:
    low, high = interval(drawn, confidence)
    return dict(zip(names, (value, low, high), strict=True))
