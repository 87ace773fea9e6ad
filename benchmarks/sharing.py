"""Time of the study, which shares work, against lmms-eval run once per arm on the same questions.

    python benchmarks/sharing.py --images 4 16 --arms 4 10 --rounds 3

Shared: the tower runs once per image, the prompt prefix once per arm and image, and an image's
questions form one batch. Plain: `lmms-eval --model prunesid --model_args share_prefix=False` runs
for each arm; it encodes, prunes and generates for one question at a time. Neither time includes
loading the model. What sharing cannot spare is each arm's own answers: the bound is the ratio if
these were all that the study took.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from itertools import product
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

Arms = dict[str, dict[str, Any]]
ARMS: Arms = {
    "vanilla": {},
    **{
        f"{grouping}-{budget}": {"method": "prunesid", "budget": budget, "grouping": grouping}
        for budget in (64, 128, 192, 32, 96, 160)
        for grouping in ("psca", "kmeans", "random")
    },
}


def shared(adapter, task: LmmsTask, arms: Arms) -> dict[str, float]:
    """Run the arms as the study does -> seconds of encoding, choosing and answering."""
    questions = task.questions()
    first = {q.image_id: q for q in reversed(questions)}
    clock = [time.perf_counter()]
    records = adapter.encode(
        adapter.preprocess([task.image(q) for q in first.values()]), names=tuple(first)
    )
    clock.append(time.perf_counter())
    spent = {"encode": clock[1] - clock[0], "choose": 0.0, "answer": 0.0}
    for arm in arms.values():
        begun = time.perf_counter()
        kept = records.compress(**arm) if arm else records.all_tokens()
        chosen = time.perf_counter()
        answer(adapter, kept, records.inputs, questions, batch_size=8)
        spent["choose"] += chosen - begun
        spent["answer"] += time.perf_counter() - chosen
    return spent


def plain(models: list[PruneSID], task: LmmsTask) -> float:
    """Run lmms-eval once per arm -> seconds."""
    manager, begun = TaskManager("WARNING", include_defaults=False), time.perf_counter()
    for model in models:
        simple_evaluate(model=model, tasks=[task.task], task_manager=manager, bootstrap_iters=0)
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--benchmark", nargs="+", default=["pocket_mme"])
    parser.add_argument("--images", nargs="+", type=int, default=[16])
    parser.add_argument("--arms", nargs="+", type=int, default=[len(ARMS)])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    adapter = load(WEIGHTS)
    models = [PruneSID(pretrained=str(WEIGHTS), share_prefix=False, **arm) for arm in ARMS.values()]
    print(f"{torch.get_num_threads()} threads, medians of {options.rounds}")
    print(
        "| benchmark | images | questions | arms | encode | choose | answer | shared "
        "| once per arm | ratio | bound | reached |\n|---|" + "---:|" * 11
    )
    for benchmark, images, count in product(options.benchmark, options.images, options.arms):
        with tempfile.TemporaryDirectory() as folder:
            data = Path(folder) / "data.parquet"
            render(benchmark, data, images)
            task = load_task(benchmark, data=data)
            arms = dict(list(ARMS.items())[:count])
            rounds = [
                (shared(adapter, task, arms), plain(models[:count], task))
                for _ in range(options.rounds)
            ]
            asked = len(task.questions())
        parts = {
            name: statistics.median(spent[name] for spent, _ in rounds) for name in rounds[0][0]
        }
        fast, slow = sum(parts.values()), statistics.median(taken for _, taken in rounds)
        print(
            f"| {benchmark} | {images} | {asked} | {count} "
            + "".join(f"| {seconds:.1f} s " for seconds in (*parts.values(), fast, slow))
            + f"| {slow / fast:.1f} | {slow / parts['answer']:.1f} "
            f"| {100 * parts['answer'] / fast:.0f} % |",
            flush=True,
        )


if __name__ == "__main__":
    main()
