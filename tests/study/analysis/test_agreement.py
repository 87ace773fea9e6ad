"""The adjusted Rand index: scikit-learn's, for a batch of images."""

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from prunesid.study.analysis.agreement import adjusted_rand


@pytest.mark.parametrize("groups", [1, 2, 7, 30])
def test_agrees_with_scikit_learn(groups):
    random = np.random.default_rng(groups)
    first = random.integers(groups, size=(5, 30))
    moved = random.random((5, 30)) < 0.3
    second = np.where(moved, random.integers(4, size=(5, 30)), first)
    expected = [adjusted_rand_score(a, b) for a, b in zip(first, second, strict=True)]
    assert adjusted_rand(first.astype(np.int16), second.astype(np.int16)) == pytest.approx(expected)
    # Of an image with fewer tokens than others.
    padding = np.full((5, 3), -1)
    padded = (np.hstack([groups, padding]) for groups in (first, second))
    assert adjusted_rand(*padded) == pytest.approx(expected)


def test_names_of_groups_do_not_matter():
    group = np.array([[0, 0, 1, 2, 2, 2]])
    assert adjusted_rand(group, 2 - group).tolist() == [1.0]


def test_trivial_partitions():
    alone, together = np.arange(6)[None], np.zeros((1, 6), np.int64)
    assert adjusted_rand(alone, alone).tolist() == [1.0]
    assert adjusted_rand(together, together).tolist() == [1.0]
    assert adjusted_rand(alone, together).tolist() == [0.0]
    assert adjusted_rand(together[:, :1], together[:, :1]).tolist() == [1.0]
