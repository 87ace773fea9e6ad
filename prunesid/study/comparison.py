"""Every arm of an ablation against its reference, as one tidy table.

One line per row x column x benchmark, the all-token arm first. The benchmark `average` is the mean
over benchmarks of the value as a percentage of the all-token arm's, per column and, in the column
`overall`, over all columns (the paper's "Avg." in table 5), of rows that are run under all of them.

    row, column           settings as 'axis=value'; 'vanilla' and 'all' for the all-token arm
    one column per axis   its value as text, empty where a line has none
    metric, unit          what is counted
    arms, seeds           names of the arms behind the line; how many runs the value is a mean of
    value                 the statistic; ci_low, ci_high its bootstrap interval
    spread                standard deviation over seeds, empty for one seed
    diff                  value minus the reference row's in the same column; diff_low, diff_high
    p, test, p_holm       test of diff = 0, which one it is, Holm's adjustment within the ablation
    p_bootstrap           from the paired bootstrap over images (`statistics.bootstrap_p`)
    p_mcnemar             exact, on questions, where the score is 0/1; several seeds combined
    detectable            smallest true difference found with a power of 0.8 at the level 0.05
    questions, images     how many
    tokens_mean, _min, _max   visual tokens per image that reached the language model
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from prunesid.files import atomic
from prunesid.study.ablation import Ablation, Setting
from prunesid.study.arm import ALL_TOKENS, text
from prunesid.study.config import Benchmark, Bootstrap
from prunesid.study.measurement import Measured, measure
from prunesid.study.metrics import Floats
from prunesid.study.power import detectable
from prunesid.study.statistics import bootstrap_p, combine_p, holm, interval, mcnemar

AVERAGE = "average"
OVERALL = "overall"
ALL = "all"
WORDS = ("benchmark", "metric", "unit", "arms", "test")
NUMBERS = (
    "seeds", "value", "ci_low", "ci_high", "spread", "diff", "diff_low", "diff_high", "p", "p_holm",
    "p_bootstrap", "p_mcnemar", "detectable", "questions", "images", "tokens_mean", "tokens_min",
    "tokens_max",
)  # fmt: skip


@dataclass(frozen=True)
class Sample:
    """What one line is made of: values (R,) of its seeds, replicates (B,) of their mean, tokens."""

    metric: str
    unit: str
    arms: tuple[str, ...]
    values: Floats
    replicates: Floats
    tokens: Floats
    questions: int
    images: int


@dataclass(frozen=True)
class Samples:
    """An ablation measured: on every benchmark the all-token arm and each cell, in that order."""

    ablation: Ablation
    bootstrap: Bootstrap
    measured: tuple[Measured, ...]
    vanilla: tuple[Sample, ...]
    cells: Mapping[tuple[Setting, Setting], tuple[Sample, ...]]

    def average(self, row: Setting, columns: Sequence[Setting]) -> Sample:
        """A row's mean over benchmarks and these columns, relative to all tokens."""
        own = [sample for column in columns for sample in self.cells[row, column]]
        return _average(own, self.vanilla)


def sample(
    scores: pd.DataFrame,
    ablation: Ablation,
    benchmarks: Sequence[Benchmark],
    bootstrap: Bootstrap = Bootstrap(),  # noqa: B008 (frozen)
) -> Samples:
    """What `compare_samples` and `pairs.compare_pairs` compare.

    `scores` as `measurement.read_scores` gives it. ValueError where an arm's scores are missing.
    """
    arms = [arm.name for arm in ablation.arms]
    measured = tuple(measure(scores, benchmark, arms, bootstrap) for benchmark in benchmarks)
    return Samples(
        ablation=ablation,
        bootstrap=bootstrap,
        measured=measured,
        vanilla=tuple(_sample(m, (ALL_TOKENS,)) for m in measured),
        cells={
            (cell.row, cell.column): tuple(
                _sample(m, tuple(a.name for a in cell.arms)) for m in measured
            )
            for cell in ablation.cells
        },
    )


def compare(
    scores: pd.DataFrame,
    ablation: Ablation,
    benchmarks: Sequence[Benchmark],
    bootstrap: Bootstrap = Bootstrap(),  # noqa: B008 (frozen)
) -> pd.DataFrame:
    """`compare_samples` of `sample`."""
    return compare_samples(sample(scores, ablation, benchmarks, bootstrap))


def compare_samples(samples: Samples) -> pd.DataFrame:
    """The comparison table of an ablation; the head of this module describes its columns."""
    ablation, bootstrap = samples.ablation, samples.bootstrap
    lines = []
    for m, own in zip(samples.measured, samples.vanilla, strict=True):
        place = {"row": ALL_TOKENS, "column": ALL, "benchmark": m.benchmark.name}
        lines.append(place | _line(own, None, None, bootstrap))
    for row in ablation.rows:
        for column in ablation.columns_of(row):
            mine, theirs = samples.cells[row, column], samples.cells[ablation.reference, column]
            for m, own, other in zip(samples.measured, mine, theirs, strict=True):
                place = _place(row, column) | {"benchmark": m.benchmark.name}
                versus = None if row == ablation.reference else other
                lines.append(place | _line(own, versus, m, bootstrap))
            lines.append(_average_line(samples, row, column))
        if len(ablation.columns) > 1 and ablation.columns_of(row) == ablation.columns:
            lines.append(_average_line(samples, row, None))
    table = pd.DataFrame(lines)
    table["p_holm"] = holm(table["p"].to_numpy(np.float64))
    for axis in ablation.axes:
        table[axis] = table[axis].fillna("") if axis in table else ""
    return table[["row", "column", *ablation.axes, *WORDS, *NUMBERS]]


def write_comparison(table: pd.DataFrame, path: Path) -> None:
    """The table as CSV, the same bytes for the same scores; atomic."""
    with atomic(path) as part:
        table.to_csv(part, index=False, float_format="%.6g", lineterminator="\n")


def read_comparison(path: Path) -> pd.DataFrame:
    """A table of `write_comparison`, axes as text and the rest as numbers."""
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    for name in NUMBERS:
        table[name] = pd.to_numeric(table[name])
    return table


def _sample(measured: Measured, arms: tuple[str, ...]) -> Sample:
    at = measured.at(arms)
    return Sample(
        metric=measured.statistic.label,
        unit=measured.statistic.unit,
        arms=arms,
        values=measured.values[at],
        replicates=measured.replicates[at].mean(axis=0),
        tokens=measured.tokens[at].ravel(),
        questions=measured.scores.shape[1],
        images=measured.tokens.shape[1],
    )


def _average(samples: Sequence[Sample], vanilla: Sequence[Sample]) -> Sample:
    """The mean over samples of each one's value as a percentage of its all-token value.

    `samples` are those of one or more columns, each in the order of `vanilla`, one per benchmark.
    Seed s of the average is the mean over seed s of each; a sample without chance has one, which
    stands for all.
    """
    pairs = list(zip(samples, itertools.cycle(vanilla), strict=False))
    seeds = max(len(s.values) for s in samples)
    with np.errstate(divide="ignore", invalid="ignore"):
        values = [np.broadcast_to(100 * s.values / v.values, seeds) for s, v in pairs]
        drawn = [100 * s.replicates / v.replicates for s, v in pairs]
    return Sample(
        metric="average",
        unit="% of all tokens",
        arms=tuple(dict.fromkeys(itertools.chain(*(s.arms for s in samples)))),
        values=np.mean(np.stack(values), axis=0),
        replicates=np.mean(np.stack(drawn), axis=0),
        tokens=np.concatenate([s.tokens for s in samples]),
        questions=sum(v.questions for v in vanilla),
        images=sum(v.images for v in vanilla),
    )


def _average_line(samples: Samples, row: Setting, column: Setting | None) -> dict[str, Any]:
    ablation = samples.ablation
    columns = ablation.columns if column is None else (column,)
    own, reference = (samples.average(r, columns) for r in (row, ablation.reference))
    versus = None if row == ablation.reference else reference
    place = _place(row, column) | {"benchmark": AVERAGE}
    return place | _line(own, versus, None, samples.bootstrap)


def _place(row: Setting, column: Setting | None) -> dict[str, str]:
    settings = [row] if column is None else [row, column]
    axes = {axis: text(value) for setting in settings for axis, value in setting.values}
    return {"row": row.key, "column": OVERALL if column is None else column.key or ALL} | axes


def _line(
    own: Sample, reference: Sample | None, measured: Measured | None, bootstrap: Bootstrap
) -> dict[str, Any]:
    """A line's numbers; `reference` None for the reference itself, `measured` None for averages."""
    low, high = interval(own.replicates, bootstrap.confidence)
    line: dict[str, Any] = dict.fromkeys(NUMBERS, np.nan) | {
        "metric": own.metric,
        "unit": own.unit,
        "arms": " ".join(own.arms),
        "test": "",
        "seeds": len(own.values),
        "value": own.values.mean(),
        "ci_low": low,
        "ci_high": high,
        "spread": own.values.std(ddof=1) if len(own.values) > 1 else np.nan,
        "questions": own.questions,
        "images": own.images,
        "tokens_mean": own.tokens.mean(),
        "tokens_min": own.tokens.min(),
        "tokens_max": own.tokens.max(),
    }
    return line if reference is None else line | difference(own, reference, measured, bootstrap)


def difference(
    own: Sample, reference: Sample, measured: Measured | None, bootstrap: Bootstrap
) -> dict[str, Any]:
    """The difference of two samples: `diff` to `detectable` of the table, but for `p_holm`.

    `measured` is the benchmark's, None for averages.
    """
    drawn = own.replicates - reference.replicates
    low, high = interval(drawn, bootstrap.confidence)
    by_bootstrap, by_mcnemar = bootstrap_p(drawn, own.images), np.nan
    if measured is not None and measured.binary:
        right = measured.scores > 0.5
        pairs = itertools.product(measured.at(own.arms), measured.at(reference.arms))
        by_mcnemar = combine_p([mcnemar(right[a], right[b]) for a, b in pairs])
    # McNemar's test is about one run's share of right answers; for F1, MME's score and means over
    # seeds the bootstrap tests what is shown.
    plain = measured is not None and measured.statistic.name == "mean"
    single = len(own.arms) == len(reference.arms) == 1
    exact = plain and single and not np.isnan(by_mcnemar)
    return {
        "diff": own.values.mean() - reference.values.mean(),
        "diff_low": low,
        "diff_high": high,
        "p": by_mcnemar if exact else by_bootstrap,
        "test": "mcnemar" if exact else "bootstrap",
        "p_bootstrap": by_bootstrap,
        "p_mcnemar": by_mcnemar,
        "detectable": detectable(float(np.nanstd(drawn, ddof=1))),
    }
