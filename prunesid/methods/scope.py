"""SCOPE (NeurIPS 2025): coverage times saliency, added greedily.

A candidate's gain is how much closer it brings all tokens to their nearest kept one, times its CLS
attention to the power alpha. Raster order. Different from upstream: ties go to the lower index.
"""

from __future__ import annotations

import torch
from torch import Tensor

from prunesid.information import similarity
from prunesid.methods import Needs, register
from prunesid.numerics import rank_of_picks
from prunesid.parameters import Param
from prunesid.record import Kept, VisionRecord, keep
from prunesid.scores.cls_attention import cls_attention
from prunesid.seeding import Draws


@register(
    "scope", params={"alpha": Param(1.0, float, minimum=0.0)}, needs=Needs(cls_attention=True)
)
def scope(record: VisionRecord, budget: Tensor, draws: Draws, *, alpha: float) -> Kept:
    """Greedy facility location, weighted by attention; a smaller budget keeps a prefix.

    alpha  exponent of the attention; 0 leaves coverage alone
    """
    similarities = similarity(record.features)
    saliency = cls_attention(record) ** alpha
    batch, tokens = saliency.shape
    covered = torch.zeros_like(saliency)  # each token's similarity to its nearest kept one
    free = torch.ones_like(saliency, dtype=torch.bool)
    picks = []
    for _ in range(int(budget.clamp(max=tokens).max())):
        gain = (similarities - covered[:, :, None]).clamp_min(0).sum(dim=1) * saliency
        pick = gain.masked_fill(~free, -torch.inf).argmax(dim=1, keepdim=True)
        picks.append(pick)
        free.scatter_(1, pick, False)
        nearest = similarities.gather(2, pick[:, :, None].expand(batch, tokens, 1))[:, :, 0]
        covered = torch.maximum(covered, nearest)
    return keep(record, rank_of_picks(torch.cat(picks, dim=1), tokens), budget)
