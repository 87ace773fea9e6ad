"""Does one number per benchmark grow with another? Rank correlation over a handful of benchmarks.

The paper's section 4.3 claims that the gain of dynamic budgets grows with the spread of the
information score. Both are estimates, and there are few benchmarks, so the correlation comes with
an interval and an exact test.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from math import factorial, nan

import numpy as np
import pandas as pd
from scipy import stats

from prunesid.study.analysis.metrics import Floats
from prunesid.study.analysis.statistics import generator_of, interval, resamples
from prunesid.study.config.study import Bootstrap

EXACT = 8


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation of a score over the images of a benchmark, with intervals."""

    images: int
    mean: float
    mean_low: float
    mean_high: float
    std: float
    std_low: float
    std_high: float
    std_error: float


@dataclass(frozen=True)
class Correlation:
    """Spearman's rank correlation of `count` pairs.

    low, high  interval from redrawing every pair with its own errors
    p          two-sided, of no association; exact for up to 8 pairs
    least_p    the smallest p that so few pairs can give
    """

    count: int
    value: float
    low: float
    high: float
    p: float
    least_p: float


def spreads(information: pd.DataFrame, bootstrap: Bootstrap) -> dict[str, Spread]:
    """The spread of phi per benchmark, from a table with columns benchmark and phi.

    Intervals resample the same images as all others do. One image alone has no spread (NaN).
    """
    return {
        str(name): _spread(own["phi"].to_numpy(np.float64), bootstrap, str(name))
        for name, own in information.groupby("benchmark", sort=False)
    }


def _spread(phi: Floats, bootstrap: Bootstrap, name: str) -> Spread:
    count = len(phi)
    if count < 2:
        value = float(phi.mean())
        return Spread(count, value, value, value, nan, nan, nan, nan)
    drawn = [
        np.stack([weights @ phi, weights @ phi**2], axis=1) / count
        for weights in resamples(count, bootstrap.resamples, bootstrap.seed, name)
    ]
    means, squares = np.concatenate(drawn).T
    deviations = np.sqrt(np.maximum(squares - means**2, 0) * count / (count - 1))
    mean = (float(phi.mean()), *interval(means, bootstrap.confidence))
    std = (float(phi.std(ddof=1)), *interval(deviations, bootstrap.confidence))
    return Spread(count, *mean, *std, float(deviations.std(ddof=1)))


def rank_correlation(
    x: Sequence[float],
    y: Sequence[float],
    x_error: Sequence[float],
    y_error: Sequence[float],
    bootstrap: Bootstrap,
    name: str = "",
) -> Correlation:
    """Spearman's correlation of pairs known up to normal errors, independent of each other.

    x_error, y_error  standard errors; benchmarks do not share questions, so theirs are independent
    name              name of the correlation, which gives it random numbers of its own
    Fewer than 3 pairs, or one side all equal, have no correlation (NaN).
    """
    count = len(x)
    if count < 3 or len(set(x)) == 1 or len(set(y)) == 1:
        return Correlation(count, nan, nan, nan, nan, nan)
    random = generator_of(bootstrap.seed, name)
    shape = (bootstrap.resamples, count)
    drawn = [
        np.asarray(center) + np.asarray(error) * random.standard_normal(shape)
        for center, error in ((x, x_error), (y, y_error))
    ]
    low, high = interval(_spearman(*drawn), bootstrap.confidence)
    value = float(stats.spearmanr(x, y).statistic)
    return Correlation(count, value, low, high, _p(x, y, value), 2 / factorial(count))


def _spearman(x: Floats, y: Floats) -> Floats:
    """Row by row, of (B, n) against (B, n); NaN where a row is all equal."""
    a, b = (stats.rankdata(values, axis=1) - (values.shape[1] + 1) / 2 for values in (x, y))
    with np.errstate(invalid="ignore"):
        return np.asarray((a * b).sum(axis=1) / np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1)))


def _p(x: Sequence[float], y: Sequence[float], value: float) -> float:
    """The two-sided p of a correlation: exact for up to `EXACT` pairs, else SciPy's.

    The exact one is the share of orders of y whose correlation is at least as far from 0 as
    `value`.
    """
    if len(x) > EXACT:
        return float(stats.spearmanr(x, y).pvalue)
    a, b = stats.rankdata(x), stats.rankdata(y)
    a, b = a - a.mean(), b - b.mean()
    orders = np.array(list(itertools.permutations(b)))
    reached = np.abs(orders @ a) / np.sqrt((a @ a) * (b @ b))
    return float((reached >= abs(value) - 1e-9).mean())
