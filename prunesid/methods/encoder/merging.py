"""Bipartite matching and merging of tokens, the core of ToMe, as functions of tensors.

B images have t tokens each, the first of which is CLS. Tokens at even places form set A, the others
set B.
"""

from __future__ import annotations

from dataclasses import dataclass

from prunesid.core.delayed import Tensor, torch
from prunesid.core.numerics import COSINE_GRID, on_grid


@dataclass(frozen=True, eq=False)
class Matching:
    """The pairs of tokens to merge: r of the a tokens in A, each with its partner in B.

    Places count within A and within B.

    stay  (B, a - r) int64 tokens of A that stay, ascending
    go    (B, r) int64 tokens of A that merge into B, the most similar first
    to    (B, r) int64 tokens of B that they merge into
    """

    stay: Tensor
    go: Tensor
    to: Tensor

    def places(self, tokens: int) -> Tensor:
        """(B, t) int64 place of each of `tokens` tokens after `merge`."""
        kept = self.stay.shape[1]
        images, device = len(self.stay), self.stay.device
        places = torch.empty(images, tokens, dtype=torch.int64, device=device)
        even = torch.empty(images, (tokens + 1) // 2, dtype=torch.int64, device=device)
        even.scatter_(1, self.stay, torch.arange(kept, device=device).expand(images, -1))
        even.scatter_(1, self.go, kept + self.to)
        places[:, ::2] = even
        places[:, 1::2] = kept + torch.arange(tokens // 2, device=device)
        return places


def match(metric: Tensor, merged: int) -> Matching:
    """Match the `merged` tokens of A that are most similar to one of B, by cosine of `metric`.

    metric  (B, t, d)

    CLS stays. At most half of the t - 1 patches can merge.
    """
    unit = torch.nn.functional.normalize(metric.double(), dim=2)
    similarity = on_grid(unit[:, ::2] @ unit[:, 1::2].transpose(1, 2), COSINE_GRID)
    similarity[:, 0] = -torch.inf
    best, partner = similarity.max(dim=2)
    order = best.argsort(dim=1, descending=True, stable=True)
    go = order[:, :merged]
    return Matching(order[:, merged:].sort(dim=1).values, go, partner.gather(1, go))


def merge(tokens: Tensor, size: Tensor, matching: Matching) -> tuple[Tensor, Tensor]:
    """Merge tokens (B, t, D) that stand for `size` (B, t) patches -> (B, t - r, D), (B, t - r).

    The tokens of A that stay come first, then B. A merged token is the mean of its patches. Sums
    are in float32 or wider.
    """
    wide = torch.promote_types(tokens.dtype, torch.float32)
    weighted = tokens.to(wide) * size[:, :, None].to(wide)
    joined, sizes = _join(weighted, matching), _join(size[:, :, None], matching)
    return (joined / sizes.to(wide)).to(tokens.dtype), sizes[:, :, 0]


def _join(values: Tensor, matching: Matching) -> Tensor:
    even, odd = values[:, ::2], values[:, 1::2]
    width = values.shape[2]

    def across(places: Tensor) -> Tensor:
        return places[:, :, None].expand(-1, -1, width)

    target = odd.scatter_add(1, across(matching.to), even.gather(1, across(matching.go)))
    return torch.cat([even.gather(1, across(matching.stay)), target], dim=1)
