"""lmms-eval's scores of all arms of a benchmark, arm by arm into the store, then one table."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from prunesid.core.files import atomic
from prunesid.core.questions import LEFT_OUT, Answer, Question, read_answers
from prunesid.lmms.scoring import score, score_table
from prunesid.lmms.tasks import LmmsTask
from prunesid.study.files.features import skipped_of
from prunesid.study.provenance.contents import score_material
from prunesid.study.provenance.store import Store
from prunesid.study.provenance.tables import read_shards
from prunesid.study.stages.source import Source


def score_benchmark(
    source: Source, benchmark: str, metric: str, answers: Sequence[Path], store: Store,
    output: Path, heads: Sequence[Path] = (),
) -> None:  # fmt: skip
    """Per-question scores of every arm as one parquet; lmms-eval's metrics beside it as JSON.

    answers  the tables of keys of the benchmark's shards
    heads    of their features, which say what is left out; the table counts it in `attrs`

    ValueError if everything is left out.
    """
    keys = read_shards(answers)
    task = source.open()
    every, skipped = task.questions(), skipped_of(heads)
    questions = [question for question in every if question.image_id not in skipped]
    if not questions:
        raise ValueError(f"{benchmark}: none of its {len(skipped)} images can be read")
    tables, metrics = [], {}
    for arm, parts in tqdm(keys.items(), desc="scoring", unit="arm"):
        material = score_material(answers=parts, benchmark=benchmark, arm=arm, metric=metric)
        if Store.key(material) not in store:
            begun = time.perf_counter()
            given = [answer for key in parts for answer in read_answers(store.get(key))]
            table = _score(task, questions, given, benchmark, arm, metric, bool(skipped))
            cost = {"seconds": time.perf_counter() - begun, "questions": len(table)}
            store.put(material, partial(_write, table), suffix=".parquet", cost=cost)
        found = pd.read_parquet(store.get(Store.key(material)))
        metrics[arm] = json.loads(found.attrs["metrics"])
        tables.append(found)
    whole = pd.concat(tables, ignore_index=True)
    if skipped:
        whole.attrs[LEFT_OUT] = [len(every) - len(questions), len(skipped)]
    with atomic(output) as temporary:
        _write(whole, temporary)
    with atomic(output.with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps(metrics, indent=1) + "\n")


def _score(
    task: LmmsTask, questions: list[Question], given: list[Answer], benchmark: str, arm: str,
    metric: str, in_part: bool,
) -> pd.DataFrame:  # fmt: skip
    said = {a.question_id: a.answer for a in given}
    found = score(task, said, metric, questions if in_part else None)
    table = score_table(found, questions, given, benchmark=benchmark, arm=arm)
    table.attrs["metrics"] = json.dumps(found.metrics)
    return table


def _write(table: pd.DataFrame, path: Path) -> None:
    table.to_parquet(path, index=False)
