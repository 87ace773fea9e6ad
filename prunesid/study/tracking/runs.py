"""The runs of an ablation, made from its scores and pictures: one per arm, one for the comparison.

The figure and the table belong to the run of the comparison alone. They change with every arm that
is added; an arm's own run should not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from prunesid.core.questions import LEFT_OUT
from prunesid.study.analysis.comparison import AVERAGE, DIFFERENCES, LEFT, VALUES, reference_arms
from prunesid.study.config.ablation import Ablation
from prunesid.study.config.arm import VANILLA, WHOLE, Arm
from prunesid.study.config.study import Study
from prunesid.study.tracking import PICTURE, Histogram, Picture, Run
from prunesid.study.tracking.json import file_name
from prunesid.study.tracking.pictures import Gallery

ARM_STAGE = "score"
COMPARISON_STAGE = "compare"
MAX_DISAGREEMENTS = 200
PICTURES_PER_BENCHMARK = 2
KEY = ["benchmark", "question_id"]
# Of a run's name; a name of a file has at most 255 bytes.
LETTERS = 56


def runs_of(
    study: Study,
    ablation: Ablation,
    scores: pd.DataFrame,
    values: pd.DataFrame,
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
    values       what the comparison found for every arm (`comparison.arm_values`)
    gallery      draws what an arm keeps of images on which it differs from its reference
    information  benchmark, image_id, phi: a histogram per benchmark, at the comparison
    facts        arm, benchmark and any numbers about how the arm pruned it
    limit        rows of the table of predictions

    Summary metrics are '<benchmark>/<name>': value, ci_low, ci_high, tokens, and against the
    reference arm diff, diff_low, diff_high; 'average/<name>' is the mean over benchmarks of the
    value as a percentage of the all-token arm's. The comparison has the benchmarks' questions and
    images, and those left out where some cannot be read. KeyError if `values` lacks an arm.
    """
    arms = ablation.arms
    benchmarks = [benchmark.name for benchmark in study.benchmarks_of(ablation)]
    lines = values.set_index(["arm", "benchmark"])
    counts = lines.loc[VANILLA.name]
    common = {
        "model": study.model_name,
        "ablation": ablation.name,
        "benchmarks": benchmarks,
        "batch_size": study.batch_size,
        "dtype": study.dtype,
        "limit": study.limit,
        "bootstrap": study.bootstrap,
    }
    references, labels = reference_arms(ablation), labels_of(ablation)
    places = _places(ablation)
    runs = []
    for arm in arms:
        reference = references[arm.name]
        predictions = answers(scores, arm, benchmarks, limit)
        pictures: tuple[Picture, ...] = ()
        if reference is not None:
            predictions = disagreements(scores, arm, reference, limit)
            predictions["reference"] = labels[reference.name]
            if gallery is not None:
                predictions, pictures = _pictured(predictions, arm, reference, gallery, labels)
        runs.append(
            Run(
                name=labels[arm.name],
                group=group_of(study, ablation),
                job_type=ARM_STAGE,
                tags=tags_of(arm, study.model_name),
                config=common
                | places.get(arm.name, {})
                | {"arm": arm.resolved(), "seed": arm.seed}
                | {"reference": None if reference is None else labels[reference.name]},
                summary=_metrics(lines.loc[arm.name], benchmarks, reference) | _facts(facts, arm),
                predictions=predictions,
                pictures=pictures,
                histograms=_token_histograms(scores, benchmarks, arm),
                environment=environment,
            )
        )
    comparison = Run(
        name=ablation.name,
        group=group_of(study, ablation),
        job_type=COMPARISON_STAGE,
        tags=(study.model_name, "comparison"),
        config=common | {"title": ablation.title, "reference": ablation.reference.as_dict()},
        summary={"arms": len(arms)}
        | {f"{b}/{n}": int(counts.at[b, n]) for n in ("questions", "images") for b in benchmarks}
        | {
            f"{b}/{name}": int(count)
            for b, own in scores.attrs.get(LEFT_OUT, {}).items()
            for name, count in zip(LEFT, own, strict=True)
            if b in benchmarks
        },
        files=files,
        histograms=_phi_histograms(information, benchmarks),
        environment=environment,
    )
    return [*runs, comparison]


def group_of(study: Study, ablation: Ablation) -> str:
    """The group of an ablation's runs, apart from those of another model in the same project."""
    return f"{study.model_name}/{ablation.name}"


def labels_of(ablation: Ablation) -> dict[str, str]:
    """{arm: its label}, fit for names of runs.

    Runs name files and folders: of labels that would be alike there, later ones get a number.
    """
    found: dict[str, str] = {}
    taken = {file_name(ablation.name)}
    for arm, label in ablation.labels.items():
        name = label.replace("/", "\N{DIVISION SLASH}")
        name = name if len(name) <= LETTERS else f"{name[: LETTERS - 1]}…"
        if file_name(name) in taken:
            name = f"{name} ({len(found) + 1})"
        taken.add(file_name(name))
        found[arm] = name
    return found


def tags_of(arm: Arm, model: str) -> tuple[str, ...]:
    """Model, method, budget and, where the method has them, preset and grouping."""
    resolved = arm.resolved()
    if arm.is_vanilla:
        return (model, WHOLE)
    choices = (str(resolved[name]) for name in ("preset", "grouping") if resolved.get(name))
    return tuple(dict.fromkeys((model, arm.method, f"budget {arm.budget}", *choices)))


def answers(scores: pd.DataFrame, arm: Arm, benchmarks: Sequence[str], limit: int) -> pd.DataFrame:
    """At most `limit` questions with an arm's answers: as many of each benchmark, wrong ones first.

    Used for the arm that all others are compared with, which has no reference to differ from.
    """
    own = scores[(scores["arm"] == arm.name) & scores["benchmark"].isin(list(benchmarks))]
    own = own.sort_values(["benchmark", "score"], kind="stable")
    place = own.groupby("benchmark").cumcount()
    chosen = own.assign(place=place).sort_values(["place", "benchmark"]).head(limit)
    shown = ["question_id", "image_id", "category", "question", "target", "answer", "score"]
    chosen = chosen.sort_values(["benchmark", "place"])
    return chosen[["benchmark", *shown]].reset_index(drop=True)


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
    predictions: pd.DataFrame,
    arm: Arm,
    reference: Arm,
    gallery: Gallery,
    labels: Mapping[str, str],
) -> tuple[pd.DataFrame, tuple[Picture, ...]]:
    """Pictures of the first images of each benchmark, and the predictions with their places."""
    pictures: list[Picture] = []
    place: dict[tuple[str, str], int] = {}
    for benchmark, own in predictions.groupby("benchmark", sort=False):
        for line in own.drop_duplicates("image_id").head(PICTURES_PER_BENCHMARK).itertuples():
            name = str(benchmark)
            path = gallery.path(name, line.question_id, line.image_id, (reference, arm))
            left, right = labels[reference.name], labels[arm.name]
            caption = (
                f"{name}: {line.question} {left} (left): {line.answer_reference}; "
                f"{right} (right): {line.answer}; correct: {line.target}"
            )
            place[name, line.image_id] = len(pictures)
            pictures.append(Picture(path, " ".join(caption.split())))
    keys = zip(predictions["benchmark"], predictions["image_id"], strict=True)
    column = pd.array([place.get(key) for key in keys], dtype="Int64")
    return predictions.assign(**{PICTURE: column}), tuple(pictures)


def _token_histograms(
    scores: pd.DataFrame, benchmarks: Sequence[str], arm: Arm
) -> dict[str, Histogram]:
    """Visual tokens per image of each benchmark on which they differ between images."""
    own = scores[scores["arm"] == arm.name]
    tokens = own.groupby(["benchmark", "image_id"])["tokens"].mean()
    return {
        f"{b}/tokens_per_image": Histogram.of(tokens[b].tolist())
        for b in benchmarks
        if np.ptp(tokens[b]) > 0
    }


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
    own: pd.DataFrame, benchmarks: Sequence[str], reference: Arm | None
) -> dict[str, float]:
    """'<benchmark>/<name>' from an arm's lines by benchmark."""
    differences = () if reference is None else DIFFERENCES
    names = dict.fromkeys(benchmarks, (*VALUES, "tokens", *differences))
    return {
        f"{benchmark}/{name}": float(own.at[benchmark, name])
        for benchmark, shown in ({AVERAGE: (*VALUES, *differences)} | names).items()
        for name in shown
    }
