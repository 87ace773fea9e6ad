"""Every arm of an ablation against its reference, as one tidy table.

One line per row x column x benchmark, the all-token arm first. The benchmark `average` is the mean
over benchmarks of the value as a percentage of the all-token arm's, per column. Rows that are run
under all columns also have it over all of them, in the column `overall` (the paper's "Avg." in
table 5).

    row, column           settings as 'axis=value'; 'vanilla' and 'all' for the all-token arm
    one column per axis   its value as text, empty where a line has none
    metric, unit          what is counted
    arms, seeds           names of the arms of the line; how many runs the value is a mean of
    value                 the statistic; ci_low, ci_high its bootstrap interval
    spread                standard deviation over seeds, empty for one seed
    diff                  value minus the reference row's in the same column; diff_low, diff_high
    p, test, p_holm       test of diff = 0, which one it is, Holm's adjustment within the ablation;
                          'sign_flip' swaps the answers of whole images (`sign_flip.sign_flip_p`)
    p_bootstrap           from the resamples of the interval (`statistics.bootstrap_p`);
    p_bootstrap_error     its Monte-Carlo error; p has no such error
    p_mcnemar             exact, where the score is 0/1; several seeds are combined. Valid only if
                          questions are independent, so not with several questions on one image
    detectable            smallest true difference found with a power of 0.8 at the level 0.05;
                          empty where none can be: few images, or no answer differs
    questions, images     how many
    questions_left_out, images_left_out   how many more are left out, the same for all rows,
                          because an image cannot be read; no such columns if none is left out
    tokens_mean, _min, _max   visual tokens per image that reached the language model

A second table, `arm_values`, holds every arm by itself, seed by seed.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from prunesid.core.files import atomic
from prunesid.core.questions import LEFT_OUT
from prunesid.study.analysis.measurement import Measured, measure
from prunesid.study.analysis.metrics import Floats
from prunesid.study.analysis.power import detectable
from prunesid.study.analysis.sign_flip import sign_flip_p
from prunesid.study.analysis.statistics import bootstrap_p, combine_p, holm, interval, mcnemar
from prunesid.study.config.ablation import Ablation, Setting
from prunesid.study.config.arm import ALL_TOKENS, VANILLA, Arm, text
from prunesid.study.config.study import Benchmark, Bootstrap

AVERAGE = "average"
OVERALL = "overall"
ALL = "all"
WORDS = ("benchmark", "metric", "unit", "arms", "test")
NUMBERS = (
    "seeds", "value", "ci_low", "ci_high", "spread", "diff", "diff_low", "diff_high", "p", "p_holm",
    "p_bootstrap", "p_bootstrap_error", "p_mcnemar", "detectable", "questions", "images",
    "tokens_mean", "tokens_min", "tokens_max",
)  # fmt: skip
LEFT = ("questions_left_out", "images_left_out")
TEST = "sign_flip"
VALUES = ("value", "ci_low", "ci_high")
DIFFERENCES = ("diff", "diff_low", "diff_high")


@dataclass(frozen=True)
class Sample:
    """The material of a line: values (R,) of its seeds, replicates (B,) of their mean, tokens."""

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
    """An ablation measured: on every benchmark the all-token arm and each cell, in that order.

    left_out  {benchmark: questions and images that are left out}, as `read_scores` says
    """

    ablation: Ablation
    bootstrap: Bootstrap
    measured: tuple[Measured, ...]
    left_out: Mapping[str, Sequence[int]]
    vanilla: tuple[Sample, ...]
    cells: Mapping[tuple[Setting, Setting], tuple[Sample, ...]]

    def average(self, row: Setting, columns: Sequence[Setting]) -> Sample:
        """A row's mean over benchmarks and these columns, relative to all tokens."""
        own = [sample for column in columns for sample in self.cells[row, column]]
        return _average(own, self.vanilla)

    def difference(
        self, row: Setting, other: Setting, columns: Sequence[Setting], place: int | None
    ) -> dict[str, Any]:
        """`row` minus `other`: the table's columns from `diff` to `detectable`, but for `p_holm`.

        It is the difference on the benchmark at `place` under the only column. If `place` is None,
        it is that of both rows' `average`.
        """
        if place is None:
            own, versus = (self.average(setting, columns) for setting in (row, other))
            with np.errstate(divide="ignore", invalid="ignore"):
                each = [
                    self._contributions(row, other, columns, number) / whole.values[0]
                    for number, whole in enumerate(self.vanilla)
                ]
                return _difference(
                    own, versus, 100 * np.concatenate(each) / len(each), self.bootstrap
                )
        own, versus = (self.cells[setting, columns[0]][place] for setting in (row, other))
        parts = self._contributions(row, other, columns, place)
        found = _difference(own, versus, parts, self.bootstrap)
        return found | {"p_mcnemar": _mcnemar(own, versus, self.measured[place])}

    def _contributions(
        self, row: Setting, other: Setting, columns: Sequence[Setting], place: int
    ) -> Floats:
        """The part (I,) of each image of a benchmark in the difference of means over columns."""
        found = [
            self.measured[place].contributions(
                *(self.cells[setting, column][place].arms for setting in (row, other))
            )
            for column in columns
        ]
        return np.asarray(np.mean(found, axis=0))


def sample(
    scores: pd.DataFrame,
    ablation: Ablation,
    benchmarks: Sequence[Benchmark],
    bootstrap: Bootstrap = Bootstrap(),  # noqa: B008 (frozen)
) -> Samples:
    """The samples that `compare_samples` and `pairs.compare_pairs` compare.

    `scores` as `measurement.read_scores` gives it. ValueError where an arm's scores are missing.
    """
    arms, names = [arm.name for arm in ablation.arms], {b.name for b in benchmarks}
    measured = tuple(measure(scores, benchmark, arms, bootstrap) for benchmark in benchmarks)
    return Samples(
        ablation=ablation,
        bootstrap=bootstrap,
        measured=measured,
        left_out={n: own for n, own in scores.attrs.get(LEFT_OUT, {}).items() if n in names},
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
    """The comparison table of an ablation: `compare_samples` of what `sample` returns."""
    return compare_samples(sample(scores, ablation, benchmarks, bootstrap))


def compare_samples(samples: Samples) -> pd.DataFrame:
    """The comparison table of an ablation; the head of this module describes its columns."""
    ablation, bootstrap = samples.ablation, samples.bootstrap
    lines = []
    for m, own in zip(samples.measured, samples.vanilla, strict=True):
        place = {"row": ALL_TOKENS, "column": ALL, "benchmark": m.benchmark.name}
        lines.append(place | _line(own, bootstrap))
    for row in ablation.rows:
        for column in ablation.columns_of(row):
            for number, m in enumerate(samples.measured):
                place = _place(row, column) | {"benchmark": m.benchmark.name}
                line = _line(samples.cells[row, column][number], bootstrap)
                lines.append(place | line | _from_reference(samples, row, (column,), number))
            lines.append(_average_line(samples, row, column))
        if len(ablation.columns) > 1 and ablation.columns_of(row) == ablation.columns:
            lines.append(_average_line(samples, row, None))
    table = pd.DataFrame(lines)
    table["p_holm"] = holm(table["p"].to_numpy(np.float64))
    for axis in ablation.axes:
        table[axis] = table[axis].fillna("") if axis in table else ""
    return table[["row", "column", *ablation.axes, *WORDS, *NUMBERS, *_left_out(samples, table)]]


def _left_out(samples: Samples, table: pd.DataFrame) -> tuple[str, ...]:
    """Add the columns LEFT if anything is left out; return the names of the added columns."""
    if not samples.left_out:
        return ()
    for number, name in enumerate(LEFT):
        counts = {benchmark: own[number] for benchmark, own in samples.left_out.items()}
        counts[AVERAGE] = sum(counts.values())
        table[name] = table["benchmark"].map(counts).fillna(0).astype(int)
    return LEFT


def arm_values(samples: Samples) -> pd.DataFrame:
    """A line per arm (seed by seed) and benchmark, `average` first.

    arm, benchmark, questions, images; `VALUES`; `DIFFERENCES` from the arm of `reference_arms`,
    empty without one; tokens, the mean over images, empty for `average`.
    """
    references = reference_arms(samples.ablation)
    lines = []
    for arm in samples.ablation.arms:
        own, other = _by_benchmark(samples, arm), _by_benchmark(samples, references[arm.name])
        for benchmark, each in own.items():
            line: dict[str, Any] = {"arm": arm.name, "benchmark": benchmark}
            line |= {"questions": each.questions, "images": each.images}
            line |= _estimate(VALUES, each.values[0], each.replicates, samples.bootstrap)
            line["tokens"] = np.nan if benchmark == AVERAGE else each.tokens.mean()
            if other:
                rival = other[benchmark]
                difference = each.values[0] - rival.values[0]
                drawn = each.replicates - rival.replicates
                line |= _estimate(DIFFERENCES, difference, drawn, samples.bootstrap)
            lines.append(line)
    return pd.DataFrame(lines)


def reference_arms(ablation: Ablation) -> dict[str, Arm | None]:
    """{arm's name: the arm with which its answers are compared}.

    This is the arm of the reference row in the same column, and of the same seed if there is one.
    Arms of the reference row are compared with the all-token arm, which itself has None.
    """
    by_column = {c.column: c.arms for c in ablation.cells if c.row == ablation.reference}
    found: dict[str, Arm | None] = {}
    for cell in ablation.cells:
        rivals = {rival.seed: rival for rival in by_column[cell.column]}
        for arm in cell.arms:
            rival = rivals.get(arm.seed, by_column[cell.column][0])
            found.setdefault(arm.name, VANILLA if cell.row == ablation.reference else rival)
    return found | {VANILLA.name: None}


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """The table as CSV, the same bytes for the same numbers; atomic."""
    with atomic(path) as part:
        table.to_csv(part, index=False, float_format="%.6g", lineterminator="\n")


def read_comparison(path: Path) -> pd.DataFrame:
    """A comparison that `write_csv` wrote, axes as text and the rest as numbers."""
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    for name in (*NUMBERS, *(name for name in LEFT if name in table)):
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


def _by_benchmark(samples: Samples, arm: Arm | None) -> dict[str, Sample]:
    """{benchmark: an arm's sample}, `AVERAGE` first; {} without an arm."""
    if arm is None:
        return {}
    own = {m.benchmark.name: _sample(m, (arm.name,)) for m in samples.measured}
    return {AVERAGE: _average(list(own.values()), samples.vanilla)} | own


def _estimate(
    names: Sequence[str], value: float, drawn: Floats, bootstrap: Bootstrap
) -> dict[str, float]:
    """A value and the low and high end of its interval, under these three names."""
    return dict(zip(names, (value, *interval(drawn, bootstrap.confidence)), strict=True))


def _average(samples: Sequence[Sample], vanilla: Sequence[Sample]) -> Sample:
    """The mean over samples of each one's value as a percentage of its all-token value.

    `samples` are those of one or more columns, each in the order of `vanilla`, one per benchmark.
    Seed s of the average is the mean over seed s of every sample. A sample without randomness has
    a single value, which counts for every seed.
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
    columns = samples.ablation.columns if column is None else (column,)
    line = _line(samples.average(row, columns), samples.bootstrap)
    place = _place(row, column) | {"benchmark": AVERAGE}
    return place | line | _from_reference(samples, row, columns, None)


def _from_reference(
    samples: Samples, row: Setting, columns: Sequence[Setting], place: int | None
) -> dict[str, Any]:
    """`Samples.difference` from the reference row; nothing for that row itself."""
    reference = samples.ablation.reference
    return {} if row == reference else samples.difference(row, reference, columns, place)


def _place(row: Setting, column: Setting | None) -> dict[str, str]:
    settings = [row] if column is None else [row, column]
    axes = {axis: text(value) for setting in settings for axis, value in setting.values}
    return {"row": row.key, "column": OVERALL if column is None else column.key or ALL} | axes


def _line(own: Sample, bootstrap: Bootstrap) -> dict[str, Any]:
    """A line's numbers but for those of `Samples.difference`, which are empty."""
    low, high = interval(own.replicates, bootstrap.confidence)
    return dict.fromkeys(NUMBERS, np.nan) | {
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


def _difference(own: Sample, other: Sample, parts: Floats, bootstrap: Bootstrap) -> dict[str, Any]:
    """The difference of two samples; `parts` is what each image adds to it."""
    drawn = own.replicates - other.replicates
    low, high = interval(drawn, bootstrap.confidence)
    by_bootstrap, error = bootstrap_p(drawn, own.images)
    return {
        "diff": own.values.mean() - other.values.mean(),
        "diff_low": low,
        "diff_high": high,
        "p": sign_flip_p(parts),
        "test": TEST,
        "p_bootstrap": by_bootstrap,
        "p_bootstrap_error": error,
        "detectable": detectable(float(np.nanstd(drawn, ddof=1)), own.images),
    }


def _mcnemar(own: Sample, other: Sample, measured: Measured) -> float:
    """McNemar's p of two samples of 0/1 scores, else NaN."""
    if not measured.binary:
        return np.nan
    right = measured.scores > 0.5
    pairs = itertools.product(measured.at(own.arms), measured.at(other.arms))
    return combine_p([mcnemar(right[a], right[b]) for a, b in pairs])
