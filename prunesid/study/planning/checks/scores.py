"""Scoring of a benchmark's answers: its task's metrics, and the judge that some need.

Scoring comes last, after everything that takes a GPU. This says beforehand what would stop it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prunesid.core.registry import unknown
from prunesid.lmms.grades import check_judge, judged
from prunesid.study.config.study import Benchmark
from prunesid.study.planning.checks.finding import MISSING, OK, Finding
from prunesid.study.planning.checks.tasks import known_data, task_data

# {statistic: part of a metric's name}: it reproduces exactly the metrics with this in their names.
OF_ONE_METRIC = {"f1": "f1", "mme": "mme_"}


def refuse_unscorable(benchmark: Benchmark) -> None:
    """ValueError for an unknown task or metric, a statistic of another metric, or no judge."""
    name = benchmark.metric.partition(",")[0]
    for part in task_data(benchmark.task):
        if name not in part.metrics:
            raise ValueError(unknown(f"metric of {part.task}", name, part.metrics))
        for statistic, mark in OF_ONE_METRIC.items():
            if (statistic == benchmark.statistic) != (mark in name):
                fitting = statistic if mark in name else f"one with '{mark}' in its name for it"
                wrong = f"statistic: {benchmark.statistic} does not give {name}; choose {fitting}"
                raise ValueError(wrong)
        check_judge(part.task, part.metrics)


def check_scores(benchmarks: Iterable[Benchmark]) -> Iterator[Finding]:
    """A line for each benchmark that cannot be scored, or that a judge will be asked about."""
    for benchmark in benchmarks:
        what, parts = f"scores of {benchmark.name}", known_data(benchmark.task)
        if not parts:
            continue
        try:
            refuse_unscorable(benchmark)
        except ValueError as error:
            yield Finding(MISSING, what, str(error), "docs/benchmarks.md says what scores need")
            continue
        asked = [name for part in parts for name in judged(part.task, part.metrics)]
        if asked:
            yield Finding(OK, what, f"a language model decides {', '.join(asked)}; it has a key")
