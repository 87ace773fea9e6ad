"""The agreement of two groupings of the same tokens: the adjusted Rand index."""

import torch
from torch import Tensor


def adjusted_rand(first: Tensor, second: Tensor) -> Tensor:
    """The adjusted Rand index of two partitions per image (Hubert & Arabie 1985).

    first, second (B, T) integers from 0, the group of each token; -1 in both is no token. Returns
    (B,) float64: 1 for the same partition whatever its groups are called, 0 on average for
    unrelated ones.
    """
    one, other = (
        torch.nn.functional.one_hot(groups.long() + 1)[..., 1:].float()
        for groups in (first, second)
    )
    table = one.transpose(1, 2) @ other
    table = table.double()
    together = _pairs(table).sum(dim=(1, 2))
    own, other = _pairs(table.sum(dim=2)).sum(dim=1), _pairs(table.sum(dim=1)).sum(dim=1)
    expected = own * other / _pairs(table.sum(dim=(1, 2))).clamp(min=1)
    highest = (own + other) / 2
    # Equal only where both put all tokens into one group, or each into its own.
    room = highest - expected
    return torch.where(room > 0, (together - expected) / room.clamp(min=1e-12), 1.0)


def _pairs(counts: Tensor) -> Tensor:
    return counts * (counts - 1) / 2
