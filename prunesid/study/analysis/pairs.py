"""Every row of an ablation against every other, under each column: who beats whom?

One line per ordered pair of rows x column x benchmark, `average` included:

    row, other, column, benchmark
    diff                  the row's value minus the other's; diff_low, diff_high its interval
    p, test, p_holm       test of diff = 0, which one it is, Holm's adjustment over the pairs of the
                          same column and benchmark
"""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from prunesid.study.analysis.comparison import ALL, AVERAGE, Samples
from prunesid.study.analysis.statistics import holm

COLUMNS = (
    "row", "other", "column", "benchmark", "diff", "diff_low", "diff_high", "p", "p_holm", "test",
)  # fmt: skip
MIRRORED = {"diff": "diff", "diff_low": "diff_high", "diff_high": "diff_low"}


def compare_pairs(samples: Samples) -> pd.DataFrame:
    """The table that the head of this module describes; empty for a single row."""
    benchmarks = {place: m.benchmark.name for place, m in enumerate(samples.measured)}
    lines: list[dict[str, Any]] = []
    for column in samples.ablation.columns:
        rows = [row for row in samples.ablation.rows if (row, column) in samples.cells]
        for place, benchmark in (*benchmarks.items(), (None, AVERAGE)):
            found = [
                {"row": a.key, "other": b.key} | samples.difference(a, b, (column,), place)
                for a, b in itertools.combinations(rows, 2)
            ]
            adjusted = holm(np.array([line["p"] for line in found], np.float64))
            for line, p in zip(found, adjusted, strict=True):
                line |= {"column": column.key or ALL, "benchmark": benchmark, "p_holm": p}
                lines += [line, _mirrored(line)]
    return pd.DataFrame(lines, columns=list(COLUMNS))


def _mirrored(line: dict[str, Any]) -> dict[str, Any]:
    """The pair the other way round."""
    signs = {name: -line[source] for name, source in MIRRORED.items()}
    return line | signs | {"row": line["other"], "other": line["row"]}


def read_pairs(path: Path) -> pd.DataFrame:
    """A table that `comparison.write_csv` wrote; the names are text."""
    words = dict.fromkeys(("row", "other", "column", "benchmark", "test"), str)
    return pd.read_csv(path, dtype=words, keep_default_na=False)
