"""Non-maximum suppression (NMS) within groups, and its threshold (section 3.3 up to the quotas)."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from prunesid.core.delayed import Tensor, torch
from prunesid.core.numerics import GRID, gram, on_cpu
from prunesid.methods.features.prunesid.information import rounded

THRESHOLDS = ("scaled", "matched", "off")
# lambda = N / 32 at the 576 tokens of the paper; at other numbers in proportion.
LAMBDA_SLOPE = 576 / 32
# Iterations between two checks whether the fixed point is reached; a check waits for the device.
STRIDE = 4
# Iterations of the first attempt on an accelerator, where one check covers all images and
# thresholds.
STEPS = 16


@dataclass(frozen=True, eq=False)
class Conflicts:
    """The P pairs of tokens, over all images, in which the higher-scored can suppress the other.

    later       (P,) int64 token of lower score, numbered through the batch: image * T + token
    earlier     (P,) int64 token of higher score, numbered likewise
    similarity  (P,) float64
    shape       (B, T)
    """

    later: Tensor
    earlier: Tensor
    similarity: Tensor
    shape: tuple[int, int]

    @property
    def image(self) -> Tensor:
        """(P,) int64 number of the pair's image, ascending."""
        return self.later.div(self.shape[1], rounding_mode="floor")


def conflicts(rows: Tensor, group: Tensor, rank: Tensor) -> Conflicts | Tensor:
    """The pairs of tokens within groups and their similarities (equation 5).

    Groups are disjoint, so the pairs are few: T^2 / 2K if the K groups have equal sizes. On the CPU
    only the similarities of these pairs are computed, and the result is `Conflicts`. On an
    accelerator the result is (B, T, T), so that no step waits for the number of pairs. It holds the
    similarity of a token to each token that can suppress it, and minus infinity elsewhere.

    rows   (B, T, D) float64 tokens from `information.unit`
    group  (B, T) int64
    rank   (B, T) int64 place of each token by score
    """
    if not on_cpu(rows):
        rivals = (group[:, :, None] == group[:, None, :]) & (rank[:, None, :] < rank[:, :, None])
        return rounded(gram(rows)).masked_fill(~rivals, -torch.inf)
    images, tokens = group.shape
    parts = [
        (later + image * tokens, earlier + image * tokens, products)
        for image in range(images)
        for later, earlier, products in _pairs(rows[image], group[image], rank[image])
    ]
    later, earlier, products = map(torch.cat, zip(*parts, strict=True))
    return Conflicts(later, earlier, rounded(products), (images, tokens))


def _pairs(rows: Tensor, group: Tensor, rank: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """The pairs of one image, the later and the earlier token and their product, by group."""
    sizes = group.bincount().tolist()
    # Row after row of a lower triangle, so that a smaller triangle comes first in a larger one.
    triangle = torch.tril_indices(max(sizes), max(sizes), -1)
    for members in (group * len(rank) + rank).argsort().split(sizes):
        tokens = rows[members]
        later, earlier = triangle[:, : len(members) * (len(members) - 1) // 2]
        yield members[later], members[earlier], (tokens @ tokens.T)[later, earlier]


def above(pairs: Conflicts, threshold: Tensor) -> Conflicts:
    """The pairs whose similarity is above their image's threshold (B,)."""
    chosen = pairs.similarity > threshold[pairs.image]
    return Conflicts(
        pairs.later[chosen], pairs.earlier[chosen], pairs.similarity[chosen], pairs.shape
    )


def suppress(pairs: Conflicts | Tensor, threshold: Tensor) -> Tensor:
    """Greedy NMS of all groups at once: keep a token iff no kept token before it is too similar.

    threshold  (B,) similarities above it are too high

    Returns keep (B, T) bool.
    """
    if not isinstance(pairs, Conflicts):
        return _settled(lambda steps: _dense_survivors(pairs, threshold, steps))
    images, tokens = pairs.shape
    close = above(pairs, threshold)
    return _survivors(close.later, close.earlier, images * tokens).view(images, tokens)


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


def matched_threshold(pairs: Conflicts | Tensor, wanted: Tensor) -> Tensor:
    """The threshold tau, by bisection, at which `wanted` tokens survive (preset `matched`).

    wanted  (B,) int64, at most T

    Returns (B,) float64 in [-1, 1], on `GRID`. At least `wanted` tokens survive at tau, and fewer
    do one grid step below. The number of survivors need not grow with tau everywhere, so a lower
    tau may do as well. Bisecting the whole grid makes the choice unique.
    """
    if not isinstance(pairs, Conflicts):
        return _settled(lambda steps: _dense_matched(pairs, wanted, steps))
    sizes = pairs.image.bincount(minlength=len(wanted)).tolist()
    parts = zip(
        pairs.similarity.split(sizes),
        pairs.later.split(sizes),
        pairs.earlier.split(sizes),
        wanted.tolist(),
        strict=True,
    )
    found = [_matched(*part, pairs.shape[1]) for part in parts]
    return torch.tensor(found, dtype=torch.float64, device=wanted.device)


def _matched(similarity: Tensor, later: Tensor, earlier: Tensor, wanted: int, tokens: int) -> float:
    """`matched_threshold` of one image from its pairs (P,), in a batch's numbering."""
    falling, order = similarity.sort(descending=True, stable=True)
    later, earlier = later[order] % tokens, earlier[order] % tokens
    rising = falling.neg().tolist()

    def enough(above: int) -> bool:
        """Whether `wanted` tokens or more survive if only the `above` most similar pairs count."""
        return int(_survivors(later[:above], earlier[:above], tokens).sum()) >= wanted

    high = int(1 / GRID)
    low = -high - 1
    # The numbers of pairs above `low` and `high`. -1: it is not known yet whether enough tokens
    # survive all pairs.
    at_low, at_high = -1, 0
    while high - low > 1:
        middle = (low + high) // 2
        above = bisect.bisect_left(rising, -middle * GRID)
        # Two thresholds with no pair between them have the same survivors.
        if above == at_high or (above != at_low and enough(above)):
            high, at_high = middle, above
        else:
            low, at_low = middle, above
    return high * GRID


def _survivors(later: Tensor, earlier: Tensor, tokens: int) -> Tensor:
    """(tokens,) bool: the tokens that greedy NMS keeps if all given pairs are too similar.

    The greedy answer is the only fixed point of its rule. From any start it is reached in as many
    steps as the longest chain of suppressions: the n-th step settles the tokens at depth n.
    """
    keep = torch.ones(tokens, dtype=torch.int32, device=later.device)
    for _ in range(0, tokens, STRIDE):
        before = keep
        for _ in range(STRIDE):
            suppressors = torch.zeros_like(keep)
            suppressors.scatter_add_(0, later, keep[earlier])
            keep = (suppressors == 0).int()
        if torch.equal(before, keep):
            break
    return keep.bool()


def _settled(attempt: Callable[[int], tuple[Tensor, Tensor]]) -> Tensor:
    """The result of the first attempt with enough steps.

    An attempt returns its result and whether its steps were enough; reading this waits for the
    device once per attempt.
    """
    steps = STEPS
    while True:
        found, enough = attempt(steps)
        if bool(enough):
            return found
        steps *= 2


def _dense_survivors(pairs: Tensor, threshold: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """`_survivors` as (B, T) bool after so many steps, and whether all images have settled."""
    close = (pairs > threshold[:, None, None]).float()
    keep = close.new_ones(close.shape[:2])
    before = keep
    for _ in range(steps):
        before, keep = keep, ((close @ keep[:, :, None])[:, :, 0] == 0).float()
    return keep.bool(), (keep == before).all()


def _dense_matched(pairs: Tensor, wanted: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """`matched_threshold` of all images together; `_matched` says why it bisects as it does."""
    high = torch.full_like(wanted, int(1 / GRID))
    low = -high - 1
    settled = torch.ones((), dtype=torch.bool, device=pairs.device)
    # The distance of the two is a little more than 2 / GRID at first.
    for _ in range(int(2 / GRID).bit_length()):
        middle = (low + high).div(2, rounding_mode="floor")
        keep, all_settled = _dense_survivors(pairs, middle.double() * GRID, steps)
        settled &= all_settled
        enough, open_ = keep.sum(dim=1) >= wanted, high - low > 1
        high = torch.where(open_ & enough, middle, high)
        low = torch.where(open_ & ~enough, middle, low)
    return high.double() * GRID, settled
