"""The agreement of two groupings of the same tokens: the adjusted Rand index."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from prunesid.study.analysis.metrics import Floats


def adjusted_rand(first: NDArray[np.integer[Any]], second: NDArray[np.integer[Any]]) -> Floats:
    """The adjusted Rand index of two partitions per image (Hubert & Arabie 1985).

    first, second (B, T) hold the group of each token, integers from 0; -1 in both is no token.
    Returns (B,) float64: 1 for equal partitions, however their groups are numbered, and 0 on
    average for unrelated ones.
    """
    there = (first >= 0) & (second >= 0)
    shape = (len(first), int(first.max(initial=0)) + 1, int(second.max(initial=0)) + 1)
    at = (np.nonzero(there)[0], first[there], second[there])
    counts = np.bincount(np.ravel_multi_index(at, shape), minlength=int(np.prod(shape)))
    table = counts.reshape(shape).astype(np.float64)
    together = _pairs(table).sum(axis=(1, 2))
    own, other = _pairs(table.sum(axis=2)).sum(axis=1), _pairs(table.sum(axis=1)).sum(axis=1)
    expected = own * other / np.maximum(_pairs(table.sum(axis=(1, 2))), 1)
    highest = (own + other) / 2
    # Equal only where both put all tokens into one group, or each into its own.
    room = highest - expected
    return np.where(room > 0, (together - expected) / np.maximum(room, 1e-12), 1.0)


def _pairs(counts: Floats) -> Floats:
    return counts * (counts - 1) / 2
