"""Paired statistics of arms that answered the same questions.

Questions on one image are not independent, so whole images are resampled, the same ones for every
arm and seed: all that two arms have in common cancels in their difference.
"""

import hashlib
from collections.abc import Iterator
from math import nan, sqrt

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from prunesid.study.analysis.metrics import Floats, Statistic

CHUNK = 500
# Differences below this many points are rounding errors of floats.
EQUAL = 1e-9


def resamples(images: int, count: int, seed: int, name: str) -> Iterator[Floats]:
    """Bootstrap weights in chunks of (<= 500, images): how often each image was drawn.

    The draws depend only on the seed and the benchmark's `name`, not on other benchmarks or arms.
    """
    generator = generator_of(seed, name)
    for start in range(0, count, CHUNK):
        size = min(CHUNK, count - start)
        drawn = generator.integers(images, size=(size, images))
        place = (drawn + images * np.arange(size)[:, None]).ravel()
        flat = np.bincount(place, minlength=size * images)
        yield flat.reshape(size, images).astype(np.float64)


def generator_of(seed: int, name: str) -> np.random.Generator:
    """Random numbers of their own for every seed and name."""
    spice = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    return np.random.default_rng([seed, spice])


def replicates(sums: Floats, chosen: Statistic, count: int, seed: int, name: str) -> Floats:
    """The statistic of every arm in every resample.

    sums (A, I, S) over arms and images -> (A, count).
    """
    arms, images, parts = sums.shape
    wide = np.ascontiguousarray(sums.transpose(1, 0, 2)).reshape(images, arms * parts)
    chunks = [
        chosen.value((weights @ wide).reshape(-1, arms, parts))
        for weights in resamples(images, count, seed, name)
    ]
    return np.concatenate(chunks).T


def interval(values: Floats, confidence: float) -> tuple[float, float]:
    """The percentile interval of bootstrap values (B,)."""
    tail = (1 - confidence) / 2
    low, high = np.nanquantile(values, [tail, 1 - tail])
    return float(low), float(high)


def bootstrap_p(differences: Floats, images: int) -> tuple[float, float]:
    """Two-sided p of a difference from its resamples (B,), and the Monte-Carlo error of that p.

    Student's t of their mean by their standard deviation, with as many degrees of freedom as there
    are `images` but one: unlike the share of resamples beyond 0, it is smooth and has no floor. The
    error is the standard deviation of p over seeds of the resampling (delta method, normal
    resamples). Without spread, p is 1 for a difference of 0, or else 2 / (B + 1), the least that
    so many resamples can say. Resamples that are no numbers are left out; NaN if fewer than two
    are left.
    """
    drawn = differences[np.isfinite(differences)]
    count = len(drawn)
    if count < 2:
        return nan, nan
    mean, error = float(drawn.mean()), float(drawn.std(ddof=1))
    if error < EQUAL or images < 2:
        return (1.0 if abs(mean) < EQUAL else 2 / (count + 1)), 0.0
    size = abs(mean) / error
    p = max(2 * float(stats.t.sf(size, images - 1)), float(np.finfo(np.float64).tiny))
    slope = 2 * float(stats.t.pdf(size, images - 1))
    return p, slope * sqrt((1 + size**2 / 2) / count)


def mcnemar(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """Exact two-sided McNemar test of two arms' right answers (Q,) to the same questions."""
    gained, lost = int((first & ~second).sum()), int((~first & second).sum())
    if gained + lost == 0:
        return 1.0
    return float(stats.binomtest(gained, gained + lost).pvalue)


def combine_p(values: list[float]) -> float:
    """One p for tests of the same difference under several seeds, however they depend.

    Rueger's rule: with k the middle one of n sorted values, n / k times the k-th is a valid p.
    """
    middle = (len(values) + 1) // 2
    return min(1.0, len(values) / middle * sorted(values)[middle - 1])


def holm(values: Floats) -> Floats:
    """Holm's step-down adjustment of p values (M,); NaN stands for no test and stays NaN."""
    adjusted = np.full(len(values), np.nan)
    tested = np.flatnonzero(~np.isnan(values))
    order = tested[np.argsort(values[tested], kind="stable")]
    steps = values[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(steps)) if len(order) else steps
    return adjusted
