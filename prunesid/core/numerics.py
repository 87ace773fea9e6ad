"""Why the same image gives the same tokens whatever the batch, the thread count or the device.

Everything is computed in float64. Linear algebra still differs in the last bits between thread
counts, which would decide ties: duplicated tokens have equal scores on paper and almost equal ones
in memory. So whatever is compared is first rounded to a grid, far coarser than these errors and far
finer than the differences that mean anything; ties are then ties, and go to the lower index.

Can a grid make ties of its own? Values closer than a step tie, so of n values over a range R that are
all ranked, about n^2 / 2 * step / R pairs do. The steps follow from that, and from the errors:

* Cosines (`COSINE_GRID`): in VisPruner, which ranks 60 times over, a step of 2^-30 changes about one
  image in 100; at 2^-40 it is one in 100 000. The error of a product of 1024 terms is 1e-15 at most.
* Probabilities and densities (`PROBABILITY_GRID`): attention to one of thousands of tokens may be 1e-6,
  and differ from the next by 1e-9, which is 2^-30. Sums over up to 32 heads remain exact.
* Everything else (`GRID`): |V|, whose error is that of an eigenvector, 1e-12 and more; thresholds, which
  are compared with finer numbers; and what is summed over all pairs of tokens, where 2^-30 is as fine as
  sums of up to 2^23 terms allow to be exact. Of 576 values of |V| one pair in some 1000 images ties, and
  matters only at the end of what its group keeps. The gains of a determinantal process are on it because
  it also says when the rank is spent: what is left then is an error, which a finer grid would take for a
  gain. Only the largest gain counts, so that a step in a million may tie.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

GRID = 2.0**-30
COSINE_GRID = 2.0**-40
PROBABILITY_GRID = 2.0**-48


def on_grid(values: Tensor, step: float = GRID) -> Tensor:
    """`values` (float64) rounded to multiples of `step`, a power of two, so that sums are exact."""
    return (values * (1 / step)).round_().mul_(step)


def per_image(function: Callable[[Tensor], Tensor], batch: Tensor) -> Tensor:
    """`function` of a (B, ...) tensor that treats images alike, with the bits of B = 1.

    Matrix libraries choose their kernel by batch size and memory alignment, so on the CPU, where
    the work per image outweighs the call, each image gets a call and fresh memory of its own.
    """
    if batch.device.type != "cpu":
        return function(batch)
    return torch.cat([function(image.clone()[None]) for image in batch])


def rank_descending(score: Tensor) -> Tensor:
    """(B, T) int64 place of each token by descending `score` (B, T); ties to the lower index."""
    return score.argsort(dim=1, descending=True, stable=True).argsort(dim=1)


def rank_ascending(key: Tensor) -> Tensor:
    """(B, T) int64 place of each token by ascending `key` (B, T); ties to the lower index."""
    return key.argsort(dim=1, stable=True).argsort(dim=1)


def rank_of_picks(picks: Tensor, num_tokens: int) -> Tensor:
    """(B, T) int64 place of each token: those of `picks` (B, M), distinct, in that order, then the
    others by index."""
    rank = torch.arange(num_tokens, device=picks.device).repeat(len(picks), 1) + num_tokens
    rank.scatter_(1, picks, torch.arange(picks.shape[1], device=picks.device).expand_as(picks))
    return rank.argsort(dim=1).argsort(dim=1)
