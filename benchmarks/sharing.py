"""Time of the study, which shares work, against lmms-eval run once per arm on the same questions.

    python benchmarks/sharing.py --images 16 --rounds 3

Shared: the tower runs once per image, the prompt prefix once per arm and image, and an image's
questions form one batch. Plain: `lmms-eval --model prunesid --model_args share_prefix=False` runs
for each arm; it encodes, prunes and generates for one question at a time. Neither time includes
loading the model.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lmms_eval.evaluator import simple_evaluate
from lmms_eval.tasks import TaskManager

from prunesid.families import load
from prunesid.generate.engine import answer
from prunesid.lmms.plugin import PruneSID
from prunesid.lmms.tasks import LmmsTask, load_task
from prunesid.pocket import WEIGHTS
from prunesid.pocket.benchmarks import render

ARMS: dict[str, dict[str, Any]] = {
    "vanilla": {},
    **{
        f"{grouping}-{budget}": {"method": "prunesid", "budget": budget, "grouping": grouping}
        for budget in (64, 128, 192)
        for grouping in ("psca", "kmeans", "random")
    },
}


def shared(adapter, task: LmmsTask) -> None:
    """Run all arms as the study does."""
    questions = task.questions()
    first = {q.image_id: q for q in reversed(questions)}
    records = adapter.encode(
        adapter.preprocess([task.image(q) for q in first.values()]), names=tuple(first)
    )
    for arm in ARMS.values():
        kept = records.compress(**arm) if arm else records.all_tokens()
        answer(adapter, kept, records.inputs, questions, batch_size=8)


def plain(models: list[PruneSID], task: LmmsTask) -> None:
    """Run lmms-eval once per arm."""
    manager = TaskManager("WARNING", include_defaults=False)
    for model in models:
        simple_evaluate(model=model, tasks=[task.task], task_manager=manager, bootstrap_iters=0)


def seconds(work: Callable[[], None], rounds: int) -> float:
    """Median time of `rounds` calls; no warm-up, since loading the model warms both ways up."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--benchmark", default="pocket_mme")
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data.parquet"
        render(options.benchmark, data, options.images)
        task = load_task(options.benchmark, data=data)
        count = len(task.questions())
        adapter = load(WEIGHTS)
        models = [
            PruneSID(pretrained=str(WEIGHTS), share_prefix=False, **arm) for arm in ARMS.values()
        ]
        fast = seconds(lambda: shared(adapter, task), options.rounds)
        slow = seconds(lambda: plain(models, task), options.rounds)
    print(
        f"{options.benchmark}: {len(ARMS)} arms, {options.images} images, {count} questions, "
        f"{torch.get_num_threads()} threads, median of {options.rounds}"
    )
    print(f"shared {fast:.1f} s, lmms-eval once per arm {slow:.1f} s, ratio {slow / fast:.1f}")


if __name__ == "__main__":
    main()
