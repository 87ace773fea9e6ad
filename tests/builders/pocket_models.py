"""Ways to ask an embedded model, for the tests of its weights."""

from __future__ import annotations

from pathlib import Path

from prunesid.generate.engine import Answer, answer, answer_plainly
from prunesid.lmms.tasks import load_task
from prunesid.pocket.benchmarks import render


def asked_both_ways(adapter, benchmark: str, budget: int, folder: Path) -> list[tuple[Answer, str]]:
    """The questions of two images with the tokens that PruneSID keeps.

    The study's answer after a prefix that the questions of an image share, and that of `generate`.
    """
    render(benchmark, folder / "data.parquet", 2)
    task = load_task(benchmark, data=folder / "data.parquet")
    questions = task.questions()
    first = {q.image_id: q for q in reversed(questions)}
    inputs = adapter.preprocess([medium for q in first.values() for medium in task.media(q)])
    records = adapter.encode(inputs, names=list(first))
    kept = records.compress("prunesid", budget=budget)
    shared = answer(adapter, kept, records.inputs, questions, batch_size=4)
    return [
        (found, answer_plainly(adapter, kept, records.inputs[question.image_id], question))
        for question, found in zip(questions, shared, strict=True)
    ]


def mean(scores: dict[str, float], families: tuple[str, ...] | None = None) -> float:
    """The mean accuracy of some families of questions, or of all."""
    chosen = scores if families is None else families
    return sum(scores[name] for name in chosen) / len(chosen)
