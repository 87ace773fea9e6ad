"""The adjusted Rand index: scikit-learn's, for a batch of images."""

import pytest
import torch
from sklearn.metrics import adjusted_rand_score

from prunesid.study.analysis.agreement import adjusted_rand


@pytest.mark.parametrize("groups", [1, 2, 7, 30])
def test_agrees_with_scikit_learn(groups):
    generator = torch.Generator().manual_seed(groups)
    first = torch.randint(groups, (5, 30), generator=generator)
    moved = torch.rand((5, 30), generator=generator) < 0.3
    second = torch.where(moved, torch.randint(4, (5, 30), generator=generator), first)
    expected = [
        adjusted_rand_score(a, b) for a, b in zip(first.tolist(), second.tolist(), strict=True)
    ]
    assert adjusted_rand(first.short(), second.short()).tolist() == pytest.approx(expected)


def test_names_of_groups_do_not_matter():
    group = torch.tensor([[0, 0, 1, 2, 2, 2]])
    assert adjusted_rand(group, 2 - group).tolist() == [1.0]


def test_trivial_partitions():
    alone, together = torch.arange(6)[None], torch.zeros(1, 6, dtype=torch.long)
    assert adjusted_rand(alone, alone).tolist() == [1.0]
    assert adjusted_rand(together, together).tolist() == [1.0]
    assert adjusted_rand(alone, together).tolist() == [0.0]
    assert adjusted_rand(torch.zeros(1, 1), torch.zeros(1, 1)).tolist() == [1.0]
