"""The number of tokens that each group keeps, and their choice (section 3.3, before equation 6).

c_k is the size of group k, m_k the number of its tokens that survive NMS, N the budget. All counts
are exact integers.
"""

from __future__ import annotations

from prunesid.core.delayed import Tensor, torch
from prunesid.core.numerics import rank_ascending

CAPS = ("none", "release")
ROUNDINGS = ("largest_remainder", "cumulative")
REFILLS = ("score", "caps")


def group_counts(group: Tensor, mask: Tensor, num_groups: int) -> Tensor:
    """(B, K) int64 tokens per group where `mask` (B, T) is true; group (B, T) in 0..K-1."""
    counts = mask.new_zeros((group.shape[0], num_groups), dtype=torch.long)
    return counts.scatter_add_(1, group, mask.long())


def quotas(
    sizes: Tensor,
    survivors: Tensor,
    budget: Tensor,
    *,
    reserved: int = 0,
    cap: str = "none",
    rounding: str = "largest_remainder",
    refill: str = "score",
) -> Tensor:
    """n_k, the number of tokens that each group keeps (before equation 6).

    sizes      (B, K) int64 c_k
    survivors  (B, K) int64 m_k, 0 < m_k <= c_k in every non-empty group
    budget     (B,) int64 N, at most the number of tokens
    reserved   places of the budget that are not for patches (1 with a CLS token)
    cap        "none", or "release": at most 5 * ceil(N / 64) per group, and at least 1 per
               non-empty group (those with most survivors, if there are more groups than places)
    rounding   rounds the shares m_k / sum(m) of the places beyond those minima.
               "largest_remainder": ties go to the lower group. "cumulative": differences of
               rounded cumulative shares, half to even. Places that the caps cut off go to the
               groups with most survivors first
    refill     "caps" raises the caps by 1 in every group until they admit N tokens, so groups may
               keep suppressed tokens. With "score" the quotas may sum to less than the budget, and
               `selection_rank` fills the rest

    Returns (B, K) int64. The sum is N - reserved, or less with refill="score".
    """
    for name, value, choices in (
        ("cap", cap, CAPS),
        ("rounding", rounding, ROUNDINGS),
        ("refill", refill, REFILLS),
    ):
        if value not in choices:
            raise ValueError(f"{name} must be one of {', '.join(choices)}, not {value!r}")
    total = budget[:, None]
    places = (total - reserved).clamp(min=0)
    if cap == "release":
        lower = sizes.clamp(max=1)
        upper = torch.minimum(survivors, 5 * (total + 63).div(64, rounding_mode="floor"))
    else:
        lower = torch.zeros_like(sizes)
        upper = survivors
    if refill == "caps":
        upper = _raise_caps(upper, sizes, total)
    lower = _fill(torch.zeros_like(lower), lower, survivors, places)
    rest = places - lower.sum(dim=1, keepdim=True)
    shares = _share(survivors, rest, rounding)
    return _fill(torch.minimum(lower + shares, upper), upper, survivors, places)


def selection_rank(group: Tensor, rank: Tensor, survived: Tensor, quota: Tensor) -> Tensor:
    """The order in which tokens are kept (equation 6, and the rule for too few survivors).

    Tokens within their group's quota come first, then survivors, then suppressed tokens, each by
    score. Inside a group, survivors precede suppressed tokens.

    group (B, T), rank (B, T) by score, survived (B, T) bool, quota (B, K). Returns (B, T) int64, a
    permutation of 0..T-1.
    """
    tokens = rank.shape[1]
    merit = rank + tokens * (~survived).long()
    place = rank_ascending(2 * tokens * group + merit)
    everyone = torch.ones_like(survived)
    sizes = group_counts(group, everyone, quota.shape[1])
    first = sizes.cumsum(dim=1) - sizes
    within = place - first.gather(1, group) < quota.gather(1, group)
    return rank_ascending(merit + 2 * tokens * (~within).long())


def _share(survivors: Tensor, places: Tensor, rounding: str) -> Tensor:
    """`places` (B, 1) split in proportion to the survivors (B, K)."""
    whole = survivors.sum(dim=1, keepdim=True)
    if rounding == "cumulative":
        # Unlike a sum of shares, a quotient of integers is exact at one half, where it matters.
        edges = (survivors.cumsum(dim=1) * places).double().div(whole).round().long()
        return edges.diff(dim=1, prepend=torch.zeros_like(whole))
    floors = (survivors * places).div(whole, rounding_mode="floor")
    remainders = survivors * places - floors * whole
    order = remainders.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    return floors + (order < places - floors.sum(dim=1, keepdim=True)).long()


def _fill(counts: Tensor, upper: Tensor, survivors: Tensor, places: Tensor) -> Tensor:
    """`counts` raised to sum to `places`, none above `upper`, groups with most survivors first."""
    order = survivors.argsort(dim=1, descending=True, stable=True)
    room = (upper - counts).gather(1, order)
    missing = (places - counts.sum(dim=1, keepdim=True)).clamp(min=0)
    before = room.cumsum(dim=1) - room
    given = torch.minimum((missing - before).clamp(min=0), room)
    return counts.scatter_add(1, order, given)


def _raise_caps(upper: Tensor, sizes: Tensor, total: Tensor) -> Tensor:
    """`upper` + r, with the smallest r at which min(upper + r, c) admits `total` (B, 1) tokens."""
    # The number of tokens admitted after 0, 1, 2, ... raises, all at once.
    room = sizes - upper
    reach = int(room.max()) + 1
    raises = torch.arange(reach, device=sizes.device)[:, None, None]
    admitted = torch.minimum(upper + raises, sizes).sum(dim=2)
    raised = (admitted < total[:, 0]).sum(dim=0)[:, None]
    return torch.minimum(upper + raised, sizes)
