"""The test of a difference between two arms: swap their answers, image by image.

Questions on one image share what is hard about it, so an image is the smallest thing that can be
swapped. If two arms are alike, their answers on any image could be swapped, which turns the sign of
the image's part in the difference. p is the share of all 2^I choices of signs that give a
difference at least as large as the one found, in either direction. p is computed, not sampled: it
needs no seed, and no number of resamples limits how small it can be. With one question per image,
right or wrong, it is the exact McNemar test.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from prunesid.study.analysis.metrics import Floats, Statistic

# Parts smaller than this share of the largest are rounding errors of floats.
NOTHING = 1e-9
# Where parts are no multiples of one number, they are rounded to this share of the sum's standard
# deviation, or of their own root mean square, whichever is smaller; `TIED` steps count as a tie.
SUM_STEP, PART_STEP = 1 / 1024, 1 / 128
TIED = 2
# The smallest part is divided by 1, 2, 3, ... up to this, to find a step that all are multiples of.
DIVISORS = 12
# Standard deviations that a distribution is computed over; tilted, it has nothing beyond.
REACH = 12
# Frequencies below this size add nothing to a float; they are looked for every `BLOCK` sizes.
FADED, BLOCK = 1e-20, 4


def contributions(own: Floats, other: Floats, chosen: Statistic) -> Floats:
    """The part of each image in the statistic's difference of two arms.

    own, other (I, S) sums over images -> (I,), in the statistic's unit: how it changes at the arms'
    midpoint as one image goes from the other's answers to its own. Means add up to their difference
    exactly, F1 and MME's score up to third order, since the second order cancels at the midpoint.
    """
    middle, half = (own + other).sum(axis=0) / 2, (own - other) / 2
    return chosen.scale * (chosen.value(middle + half) - chosen.value(middle - half))


def sign_flip_p(parts: Floats) -> float:
    """Two-sided p of the sum of `parts` (I,) under independent random signs; never 0.

    Exact where the parts are multiples of one number, such as differences of 0/1 scores; their ties
    count as ties in spite of float rounding. Other parts are rounded to a fine grid. That does not
    change the level, since a part and its negative are rounded alike. NaN if a part is no number.
    """
    if not np.isfinite(parts).all():
        return float("nan")
    size = np.abs(parts)
    parts = parts[size > NOTHING * size.max(initial=0.0)]
    if abs(parts.sum()) <= NOTHING * size.sum():
        return 1.0
    steps, tied = _steps(parts)
    reached = abs(int(steps.sum())) - tied
    return 1.0 if reached <= 0 else min(1.0, 2 * _tail(np.abs(steps), reached))


def _steps(parts: Floats) -> tuple[NDArray[np.int64], int]:
    """The parts as whole numbers of one step, and how many steps count as a tie."""
    size = np.abs(parts)
    spread = float(np.sqrt((size**2).sum()))
    finest = spread * min(SUM_STEP, PART_STEP / np.sqrt(len(parts)))
    for divisor in range(1, DIVISORS + 1):
        step = size.min() / divisor
        if step < finest:
            break
        steps = parts / step
        if np.allclose(steps, np.rint(steps), rtol=0, atol=1e-6):
            return np.rint(steps).astype(np.int64), 0
    return np.rint(parts / finest).astype(np.int64), TIED


def _tail(steps: NDArray[np.int64], reached: int) -> float:
    """The probability that `steps` (I,), each with a random sign, add up to `reached` > 0 or more.

    Signs are tilted until their sum has its mean there. The tilted distribution is the inverse
    Fourier transform of a product over steps, and the tail a sum of it, tilted back.
    """
    sizes, counts = np.unique(steps[steps > 0], return_counts=True)
    spread = float(np.sqrt((counts * sizes**2).sum()))
    # The largest sum of all needs signs that never vary; half a step below it, they still do.
    aim = min(float(reached), (counts * sizes).sum() - sizes[0] / 2)

    def short(tilt: float) -> float:
        return float((counts * sizes * np.tanh(tilt * sizes)).sum() - aim)

    steepest = 1 / spread
    while short(steepest) < 0:
        steepest *= 2
    tilt = float(brentq(short, 0.0, steepest))
    length = 1 << int(np.ceil(np.log2(REACH * (spread + 1))))
    roots = np.exp(-2j * np.pi / length * np.arange(length))
    at = np.arange(length // 2 + 1)
    wave = roots[at * reached % length].conj()
    lean = np.tanh(tilt * sizes)
    for place, (size, count) in enumerate(zip(sizes, counts, strict=True)):
        turn = roots[at * size % length]
        turn.imag *= lean[place]
        wave *= turn if count == 1 else turn**count
        if place % BLOCK == BLOCK - 1:
            seen = np.abs(wave) > FADED
            at, wave = at[seen], wave[seen]
    spectrum = np.zeros(length // 2 + 1, np.complex128)
    spectrum[at] = wave
    beyond = np.arange(length // 2)
    mass = np.fft.irfft(spectrum, length)[: length // 2].clip(0)
    cumulant = (counts * (np.logaddexp(tilt * sizes, -tilt * sizes) - np.log(2))).sum()
    tail = float((mass * np.exp(-tilt * beyond)).sum() * np.exp(cumulant - tilt * reached))
    return max(tail, float(np.finfo(np.float64).tiny))
