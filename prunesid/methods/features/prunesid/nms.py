"""Non-maximum suppression (NMS) within groups, and its threshold (section 3.3 up to the quotas)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from prunesid.core.numerics import GRID

THRESHOLDS = ("scaled", "matched", "off")
# lambda = N / 32 at the 576 tokens of the paper; at other numbers in proportion.
LAMBDA_SLOPE = 576 / 32
# Iterations between two checks whether the fixed point is reached; a check waits for the device.
STRIDE = 4


@dataclass(frozen=True, eq=False)
class Conflicts:
    """The P pairs of tokens, in all images, of which the higher-scored can suppress the other.

    image       (P,) int64 number of the pair's image
    later       (P,) int64 token of lower score, numbered through the batch: image * T + token
    earlier     (P,) int64 token of higher score, numbered likewise
    similarity  (P,) float64
    shape       (B, T)
    """

    image: Tensor
    later: Tensor
    earlier: Tensor
    similarity: Tensor
    shape: tuple[int, int]


def conflicts(similarities: Tensor, group: Tensor, rank: Tensor) -> Conflicts:
    """The pairs of tokens within groups; similarities (B, T, T), group and rank by score (B, T).

    Groups are disjoint, so the pairs are few: T^2 / 2K if the K groups have equal sizes.
    """
    rivals = (group[:, :, None] == group[:, None, :]) & (rank[:, None, :] < rank[:, :, None])
    image, later, earlier = rivals.nonzero(as_tuple=True)
    tokens = group.shape[1]
    return Conflicts(
        image=image,
        later=image * tokens + later,
        earlier=image * tokens + earlier,
        similarity=similarities[image, later, earlier],
        shape=(group.shape[0], tokens),
    )


def above(pairs: Conflicts, threshold: Tensor) -> Conflicts:
    """The pairs whose similarity is above their image's threshold (B,)."""
    chosen = pairs.similarity > threshold[pairs.image]
    return Conflicts(
        image=pairs.image[chosen],
        later=pairs.later[chosen],
        earlier=pairs.earlier[chosen],
        similarity=pairs.similarity[chosen],
        shape=pairs.shape,
    )


def suppress(pairs: Conflicts, threshold: Tensor) -> Tensor:
    """Greedy NMS of all groups at once: keep a token iff no kept token before it is too similar.

    threshold  (B,) similarities above it are too high

    Returns keep (B, T) bool.

    The greedy answer is the only fixed point of that rule. From any start it is reached in as many
    steps as the longest chain of suppressions: the n-th step settles the tokens at depth n.
    """
    images, tokens = pairs.shape
    close = above(pairs, threshold)
    keep = torch.ones(images * tokens, dtype=torch.int32, device=close.later.device)
    for _ in range(0, tokens, STRIDE):
        before = keep
        for _ in range(STRIDE):
            suppressors = torch.zeros_like(keep)
            suppressors.scatter_add_(0, close.later, keep[close.earlier])
            keep = (suppressors == 0).int()
        if torch.equal(before, keep):
            break
    return keep.bool().view(images, tokens)


def scaled_threshold(
    rho: Tensor, budget: Tensor, num_tokens: int, lam: float | None = None, min_lam: float = 0.0
) -> Tensor:
    """The threshold tau = lambda * rho.

    lambda is `lam`, or else max(18 N / T, `min_lam`), where 18 N / T is N / 32 at T = 576. rho (B,)
    float64, budget (B,). Returns (B,) float64; from 1 on nothing is suppressed.
    """
    if lam is not None:
        return lam * rho
    return (LAMBDA_SLOPE * budget.double() / num_tokens).clamp(min=min_lam) * rho


def matched_threshold(pairs: Conflicts, wanted: Tensor) -> Tensor:
    """The threshold tau, by bisection, at which `wanted` tokens survive (preset `matched`).

    wanted  (B,) int64, at most T

    Returns (B,) float64 in [-1, 1], on `GRID`. At least `wanted` tokens survive at tau, and fewer
    do one grid step below. The number of survivors need not grow with tau everywhere, so a lower
    tau may do as well. Bisecting the whole grid makes the choice unique.
    """
    high = torch.full_like(wanted, int(1 / GRID))
    low = -high - 1
    for _ in range((2 * int(1 / GRID)).bit_length()):
        # No later threshold is below `low`, so only these pairs can still matter.
        pairs = above(pairs, low.double() * GRID)
        middle = (low + high).div(2, rounding_mode="floor")
        enough = suppress(pairs, middle.double() * GRID).sum(dim=1) >= wanted
        settled = high - low <= 1
        high = torch.where(enough & ~settled, middle, high)
        low = torch.where(enough | settled, low, middle)
    return high.double() * GRID
