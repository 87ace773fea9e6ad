"""The explorer: a folder with one page of a study, to look at images, kept patches and answers.

    from prunesid.study.explorer import write_explorer
    write_explorer(study, store, folder)

The page opens from a file. Its data are scripts that hand over JSON, which it loads when they are
needed, and pictures. docs/explorer.md describes both.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from prunesid.core.questions import Question, read_answers
from prunesid.pocket.benchmarks import BENCHMARKS as RENDERED
from prunesid.study.analysis.comparison import AVERAGE
from prunesid.study.analysis.metrics import digits, statistic
from prunesid.study.config.arm import Arm
from prunesid.study.config.study import Benchmark, Study
from prunesid.study.explorer.columns import coded, numbers, write_script
from prunesid.study.explorer.kept import BLOCK, Place, write_kept, write_left
from prunesid.study.explorer.lines import costs_of, lines_of, times_of, whole_table
from prunesid.study.explorer.views import as_text, pictures_of, views_of
from prunesid.study.files.features import read_head
from prunesid.study.layout import Layout
from prunesid.study.provenance.store import Store
from prunesid.study.provenance.tables import read_keys
from prunesid.study.stages.shard import shards
from prunesid.study.stages.source import source_of

PAGE = Path(__file__).parent / "page"
QUALITY = 75
RIGHT = 0.5


def write_explorer(study: Study, store: Store, folder: Path) -> None:
    """Write the page of a finished study, of one model, to `folder`.

    store  has what the arms kept and answered
    """
    shutil.copytree(PAGE, folder, dirs_exist_ok=True)
    data, layout, arms = folder / "data", Layout.of(study), study.arms
    information = pd.read_parquet(layout.information)
    benchmarks = []
    for benchmark in study.benchmarks:
        scores = pd.read_parquet(layout.scores(benchmark.name))
        own = {arm.name for arm in study.arms_of(benchmark.name)}
        chosen = {n: arm for n, arm in enumerate(arms) if arm.name in own}
        phi = information[information["benchmark"] == benchmark.name].set_index("image_id")["phi"]
        found = _write_benchmark(study, benchmark, scores, chosen, phi, store, folder)
        costs = costs_of(study, benchmark.name)
        benchmarks.append(found | {"macs": {n: costs[arm.name] for n, arm in chosen.items()}})
    times = times_of(study)
    document = {
        "title": study.title,
        "model": study.model,
        "average": AVERAGE,
        "block": BLOCK,
        "confidence": study.bootstrap.confidence,
        "benchmarks": benchmarks,
        "whole": whole_table(study),
        "lines": lines_of(study, arms),
        "arms": [
            {"selects": arm.selects, "late": arm.is_late, "asked": bool(arm.asked),
             "ms": times.get(arm.name)}
            for arm in arms
        ],
    }  # fmt: skip
    write_script(data, "study", document)


def _write_benchmark(
    study: Study, benchmark: Benchmark, scores: pd.DataFrame, arms: Mapping[int, Arm],
    phi: pd.Series, store: Store, folder: Path,
) -> dict[str, Any]:  # fmt: skip
    """Write all of one benchmark; return what the page needs to know before it loads the rest."""
    name, data = benchmark.name, folder / "data"
    by_arm = {str(arm): own for arm, own in scores.groupby("arm", sort=False)}
    asked = by_arm[next(iter(arms.values())).name]
    order = pd.Index(asked["question_id"])
    aligned = {n: _aligned(by_arm[arm.name], order) for n, arm in arms.items()}
    images = list(dict.fromkeys(asked["image_id"]))
    places, views = _write_pictures(study, benchmark, asked, images, folder)
    document = {
        "ids": coded(asked["question_id"]),
        "question": coded(asked["question"].fillna("")),
        "target": coded(asked["target"].fillna("")),
        "category": coded(asked["category"].fillna("")),
        "weight": coded(asked["weight"]),
        "image": numbers(pd.Index(images).get_indexer(asked["image_id"])),
        "images": images,
        "phi": [None if pd.isna(value) else float(value) for value in phi.reindex(images)],
        "views": coded(views),
        "disagree": numbers(_disagreeing(list(aligned.values()))),
    }
    write_script(data, f"{name}/questions", document)
    layout = Layout.of(study)
    keys = {
        stage: [read_keys(layout.keys(stage, name, shard)) for shard in shards(study.shards)]
        for stage in ("selections", "answers")
    }
    by_image = [list(own["question_id"]) for _, own in asked.groupby("image_id", sort=False)]
    for number, arm in arms.items():
        own = aligned[number]
        fields = ("answer", "score", "tokens")
        said: dict[str, Any] = {field: coded(own[field]) for field in fields}
        if arm.is_late:
            answers = {
                answer.question_id: answer
                for shard in keys["answers"] if shard
                for answer in read_answers(store.get(shard[arm.name]))
            }  # fmt: skip
            entering = (answers[question].entering or () for question in order)
            said["layers"] = coded(" ".join(map(str, each)) for each in entering)
            left = {question: answer.left or () for question, answer in answers.items()}
            if places and all(left.values()):
                said["left"] = True
                write_left(data, f"{name}/left/{number}", left, places, by_image)
        write_script(data, f"{name}/arms/{number}", said)
        if arm.selects and places:
            paths = [store.get(shard[arm.name]) for shard in keys["selections"] if shard]
            write_kept(data, f"{name}/kept/{number}", paths, places, by_image)
    chosen = statistic(benchmark.statistic)
    return {
        "name": name,
        "title": benchmark.title,
        "statistic": benchmark.statistic,
        "label": chosen.label,
        "unit": chosen.unit,
        "scale": chosen.scale,
        "digits": digits(chosen.unit),
        "questions": len(asked),
        "images": len(images),
    }


def _aligned(own: pd.DataFrame, order: pd.Index) -> pd.DataFrame:
    """An arm's lines in this order of questions; ValueError if it answered others."""
    place = pd.Index(own["question_id"]).get_indexer(order)
    if len(own) != len(order) or (place < 0).any():
        raise ValueError(f"{own['arm'].iloc[0]} answered other questions than all tokens")
    return own.iloc[place]


def _disagreeing(tables: Sequence[pd.DataFrame]) -> np.ndarray:
    """(questions,) how many arms are right where the first is wrong, or the other way round."""
    right = np.stack([own["score"].to_numpy(np.float64) > RIGHT for own in tables])
    return np.asarray((right != right[0]).sum(axis=0))


def _write_pictures(
    study: Study, benchmark: Benchmark, asked: pd.DataFrame, images: Sequence[str], folder: Path
) -> tuple[list[Place], list[str]]:
    """Write the pictures of the images; return the place of each one's crops and its views as text.

    No places if the questions show nothing.
    """
    layout = Layout.of(study)
    rendered = layout.data(benchmark.task) if benchmark.task in RENDERED else None
    heads = [read_head(layout.head(benchmark.name, shard)) for shard in shards(study.shards)]
    heads = [head for head in heads if head.inputs]
    grids = [head.row_grids for head in heads]
    shard_of = {name: number for number, head in enumerate(heads) for name in head.inputs}
    first = dict(zip(reversed(asked["image_id"]), reversed(asked["question_id"]), strict=True))
    task = source_of(study, benchmark, rendered).open()
    places, texts = [], []
    target = folder / "images" / benchmark.name
    target.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(images):
        shard = shard_of[name]
        media = heads[shard].inputs[name]
        rows = tuple(row for medium in media for row in medium.rows)
        own = [grids[shard][row] for row in rows]
        texts.append(as_text(views_of(media, own)))
        if not rows:
            continue
        places.append(Place(shard, rows, tuple(down * across for down, across in own)))
        seen = task.media(Question(first[name], name, ""))
        pictures = [
            picture
            for medium, each in zip(media, seen, strict=True)
            for picture in pictures_of(medium, each, grids[shard][medium.rows[0]])
        ]
        for place, picture in enumerate(pictures):
            picture.save(target / f"{number}-{place}.jpg", quality=QUALITY, optimize=True)
    return places if len(places) == len(images) else [], texts
