"""The finished arms and their comparison, as runs of experiment trackers."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from PIL import Image

from prunesid.core.files import atomic
from prunesid.core.questions import Question
from prunesid.study.analysis.latency import arm_times, read_latency
from prunesid.study.analysis.measurement import concat_scores
from prunesid.study.config.study import Study
from prunesid.study.provenance.store import Store
from prunesid.study.stages.patches import as_seen, first_crops
from prunesid.study.stages.source import source_of
from prunesid.study.tracking import Run, Settings
from prunesid.study.tracking.artifacts import (
    Artifact,
    artifact_name,
    send_artifacts,
    write_artifacts,
)
from prunesid.study.tracking.environment import environment
from prunesid.study.tracking.pictures import Gallery
from prunesid.study.tracking.publish import publish
from prunesid.study.tracking.runs import runs_of

if TYPE_CHECKING:
    from prunesid.lmms.tasks import LmmsTask

log = logging.getLogger(__name__)
ARM_VALUES = "arm_values.parquet"
PICTURES = "pictures"
SIDE = 224
REPORT_TYPES = (".csv", ".html", ".md", ".pdf", ".png", ".svg")


@dataclass(frozen=True)
class BenchmarkFiles:
    """The stages' files of one benchmark, `selections` and `heads` shard by shard; `data` is
    its rendered file, where it has one."""

    scores: Path
    selections: tuple[Path, ...]
    heads: tuple[Path, ...]
    data: Path | None = None


def settings_of(study: Study) -> Settings:
    """How a study wants its runs published."""
    wandb = study.wandb
    return Settings(wandb.mode, wandb.project, wandb.entity, trackio=study.trackio)


def publish_study(
    study: Study,
    benchmarks: Mapping[str, BenchmarkFiles],
    ablations: Mapping[str, Path],
    information: Path,
    store: Store,
    directory: Path,
    output: Path,
) -> None:
    """Publish every arm of every ablation and write what to tell the user to `output`.

    ablations    {ablation: folder with figure.png, table.html and the tables of its comparison}
    information  phi of every image of every benchmark
    """
    table = concat_scores(pd.read_parquet(b.scores) for b in benchmarks.values())
    surroundings = environment(study.device)
    gallery = gallery_of(study, benchmarks, store, directory)
    runs: list[Run] = []
    for name, folder in ablations.items():
        ablation = study.ablation(name)
        facts, files = pd.read_csv(folder / "arms.csv"), dict[str, Path]()
        if ablation.clocked is not None:
            times = arm_times(read_latency(folder / "latency.csv"), ablation.clocked)
            facts = facts.merge(times, "left", ["arm", "benchmark"], validate="one_to_one")
            files = {
                "latency": folder / "latency.html",
                "accuracy and time": folder / "speed.png",
                "stations": folder / "stations.png",
            }
        runs += runs_of(
            study,
            ablation,
            table,
            pd.read_parquet(folder / ARM_VALUES),
            {
                "figure": folder / "figure.png",
                "table": folder / "table.html",
                "comparison": folder / "comparison.csv",
                **files,
            },
            surroundings,
            gallery=gallery,
            information=pd.read_parquet(information),
            facts=facts,
        )
    settings = settings_of(study)
    publication = publish(runs, directory, settings)
    gallery.keep_only(picture.path for run in runs for picture in run.pictures)
    write_artifacts(artifacts_of(study, benchmarks, ablations), directory)
    lines = [publication.message()]
    if any(d.status == "online" for e in publication.entries for d in e.deliveries.values()):
        problem = send_artifacts(directory, settings)
        if problem is not None:
            log.warning("the artifacts were not uploaded: %s", problem)
            lines.append(f"W&B: the artifacts are not online: {problem}")
    with atomic(output) as temporary:
        temporary.write_text("\n".join(lines) + "\n")


def gallery_of(
    study: Study, benchmarks: Mapping[str, BenchmarkFiles], store: Store, directory: Path
) -> Gallery:
    """Pictures of the study's images and selections, in a folder below that of the runs."""

    @cache
    def task(name: str) -> LmmsTask:
        return source_of(study, study.benchmark(name), benchmarks[name].data).open()

    def find(benchmark: str, question_id: str, image_id: str) -> Image.Image:
        image = task(benchmark).image(Question(question_id, image_id, ""))
        view = crops[benchmark][image_id].view
        return Image.fromarray(as_seen(image, (SIDE, SIDE), view))

    crops = {name: first_crops(b.heads, b.selections) for name, b in benchmarks.items()}
    return Gallery(directory / PICTURES, crops, store, find)


def artifacts_of(
    study: Study, benchmarks: Mapping[str, BenchmarkFiles], ablations: Mapping[str, Path]
) -> list[Artifact]:
    """Features, the answers with their scores made from these, and the report made from those."""
    features, answers, report = (
        artifact_name(kind, study.model_name) for kind in ("features", "answers", "report")
    )
    pages = {
        f"{name}/{path.name}": path
        for name, folder in ablations.items()
        for path in sorted(folder.iterdir())
        if path.suffix in REPORT_TYPES
    }
    return [
        Artifact(
            features,
            "features",
            {
                f"{name}/{path.parent.name}{path.suffix}": path
                for name, b in benchmarks.items()
                for path in b.heads
            },
            by_reference=True,
        ),
        Artifact(
            answers,
            "answers",
            {f"{name}{b.scores.suffix}": b.scores for name, b in benchmarks.items()},
            (features,),
        ),
        Artifact(report, "report", pages, (answers,)),
    ]
