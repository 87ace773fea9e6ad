"""What the paper prints: its tables by number, and the benchmarks that head their columns."""

import csv
from functools import cache

from prunesid.study.clone import in_clone


@cache
def printed(column: str) -> tuple[str, ...]:
    """The distinct values of a column of configs/paper/results.csv, such as "table"."""
    with in_clone("configs", "paper", "results.csv").open(encoding="utf-8", newline="") as file:
        return tuple(sorted({row[column] for row in csv.DictReader(file)}))
