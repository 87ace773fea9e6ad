"""Bipartite matching and merging of tokens, ToMe's heart, as functions of tensors.

B images, t tokens each, the first of them CLS. Tokens at even places are A, the others B.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from prunesid.core.numerics import COSINE_GRID, on_grid


@dataclass(frozen=True, eq=False)
class Matching:
    """Which tokens of A go into which of B; places count within A and within B.

    stay  (B, a - r) int64 those of A that stay, ascending
    go    (B, r) int64 those of A that go, the most similar first
    to    (B, r) int64 those of B that they go into
    """

    stay: Tensor
    go: Tensor
    to: Tensor

    def places(self, tokens: int) -> Tensor:
        """(B, t) int64 where each of `tokens` tokens is after `merge`."""
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
    """The `merged` tokens of A most similar to one of B, by the cosine of `metric` (B, t, d).

    CLS stays. At most half of the t - 1 patches can go.
    """
    unit = torch.nn.functional.normalize(metric.double(), dim=2)
    similarity = on_grid(unit[:, ::2] @ unit[:, 1::2].transpose(1, 2), COSINE_GRID)
    similarity[:, 0] = -torch.inf
    best, partner = similarity.max(dim=2)
    order = best.argsort(dim=1, descending=True, stable=True)
    go = order[:, :merged]
    return Matching(order[:, merged:].sort(dim=1).values, go, partner.gather(1, go))


def merge(tokens: Tensor, size: Tensor, matching: Matching) -> tuple[Tensor, Tensor]:
    """Tokens (B, t, D) of so many patches (B, t) each -> (B, t - r, D) and (B, t - r).

    What stays of A comes first, then B; a merged token is the mean of its patches. Sums are in float32
    or wider.
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
