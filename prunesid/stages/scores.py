"""lmms-eval's scores of all arms of a benchmark, arm by arm into the store, then one table."""

from __future__ import annotations

import importlib.metadata
import json
from functools import partial
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from prunesid.answering import Question, read_answers
from prunesid.answering.store import Store
from prunesid.evaluation.scoring import score, score_table
from prunesid.evaluation.tasks import LmmsTask
from prunesid.files import atomic, code_digest
from prunesid.stages.selection import read_keys
from prunesid.stages.source import Source


def score_benchmark(
    source: Source, benchmark: str, metric: str, answers: Path, store: Store, output: Path
) -> None:
    """Per-question scores of every arm as one parquet; lmms-eval's metrics beside it as JSON."""
    keys = read_keys(answers)
    task = source.open()
    questions = task.questions()
    code = code_digest("prunesid.evaluation")
    tables, metrics = [], {}
    for arm, key in tqdm(keys.items(), desc="scoring", unit="arm"):
        material = {
            "stage": "score", "answers": key, "benchmark": benchmark, "arm": arm,
            "metric": metric, "code": code, "lmms-eval": importlib.metadata.version("lmms-eval"),
        }  # fmt: skip
        if Store.key(material) not in store:
            table = _score(task, questions, store.get(key), benchmark, arm, metric)
            store.put(material, partial(_write, table), suffix=".parquet")
        found = pd.read_parquet(store.get(Store.key(material)))
        metrics[arm] = json.loads(found.attrs["metrics"])
        tables.append(found)
    with atomic(output) as temporary:
        _write(pd.concat(tables, ignore_index=True), temporary)
    with atomic(output.with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps(metrics, indent=1) + "\n")


def _score(
    task: LmmsTask, questions: list[Question], answers: Path, benchmark: str, arm: str, metric: str
) -> pd.DataFrame:
    given = read_answers(answers)
    found = score(task, {a.question_id: a.answer for a in given}, metric)
    table = score_table(found, questions, given, benchmark=benchmark, arm=arm)
    table.attrs["metrics"] = json.dumps(found.metrics)
    return table


def _write(table: pd.DataFrame, path: Path) -> None:
    table.to_parquet(path, index=False)
