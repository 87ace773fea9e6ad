"""SCOPE (NeurIPS 2025): coverage times saliency, added greedily.

A candidate's gain is the increase, summed over all tokens, in similarity to the nearest kept token,
times the candidate's CLS attention to the power alpha. The output is in raster order.

Differences from upstream: ties go to the lower index.
"""

from __future__ import annotations

from prunesid.core.costs import Visual
from prunesid.core.crops import EVERY, Crops
from prunesid.core.delayed import Array, Tensor, np, torch
from prunesid.core.needs import Needs
from prunesid.core.numerics import in_numpy, rank_of_picks
from prunesid.core.parameters import Param
from prunesid.core.record import Kept, VisionRecord, keep
from prunesid.core.seeding import Draws
from prunesid.methods.features import Split, register
from prunesid.methods.features.prunesid.information import similarity
from prunesid.methods.features.prunesid.scores.cls_attention import cls_attention
from prunesid.methods.registry import Resolved, Source

# Bounds of gains that the first attempt computes anew; each further attempt doubles their number.
REFRESHED = 16


def _macs(visual: Visual, budget: int, params: Resolved) -> int:
    """Multiply-adds of all similarities, and of every candidate's gain at each step."""
    return visual.tokens**2 * (visual.width + budget)


def _share(base: VisionRecord, budget: int, crops: tuple[int, int], *, alpha: float) -> list[int]:
    """The budget shared evenly among the crops of an image; the remainder is lost, as upstream."""
    number = 1 + crops[0] * crops[1]
    return [budget // number] * number


@register(
    "scope",
    params={"alpha": Param(1.0, float, minimum=0.0)},
    needs=Needs(cls_attention=True),
    crops=Crops(budget_for=EVERY),
    split=Split(_share),
    macs=_macs,
    source=Source(
        title="SCOPE: Saliency-Coverage Oriented Token Pruning for Efficient Multimodal LLMs",
        venue="NeurIPS 2025",
        repository="kinredon/SCOPE",
        commit="6bf73069e0d61307051cfda8e25925bc7b7afdd9",
        golden=("scope",),
    ),
)
def scope(record: VisionRecord, budget: Tensor, draws: Draws, *, alpha: float) -> Kept:
    """Keep tokens by greedy facility location, weighted by attention.

    A smaller budget keeps a prefix of the selection.

    alpha  exponent of the attention; with 0 only coverage counts
    """
    similarities = similarity(record.features)
    saliency = cls_attention(record) ** alpha
    tokens = record.num_tokens
    steps = int(budget.clamp(max=tokens).max())
    if in_numpy(saliency):
        images = zip(similarities.numpy(), saliency.numpy(), strict=True)
        picks = torch.stack([_lazy_greedy(*image, steps) for image in images])
    else:
        picks = _greedy(similarities, saliency, steps)
    return keep(record, rank_of_picks(picks, tokens), budget)


def _lazy_greedy(similarities: Array, saliency: Array, steps: int) -> Tensor:
    """The picks (steps,) of `_greedy` for one image, from (T, T) and (T,), with less work.

    A token's gain never grows, so its gain at an earlier step is an upper bound. The largest bounds
    are computed anew until the largest of all is a gain of this step. Sums of gains are exact in
    any order.
    """
    covered = np.zeros_like(saliency)
    bound = similarities.clip(min=0).sum(axis=1) * saliency
    exact = np.ones_like(saliency, dtype=bool)
    picks = []
    for _ in range(steps):
        block = REFRESHED
        while not exact[pick := int(bound.argmax())]:
            open_ = np.flatnonzero(~exact)
            if block < len(open_):
                open_ = open_[np.argpartition(bound[open_], -block)[-block:]]
            closer = similarities[open_] - covered
            bound[open_] = np.maximum(closer, 0, out=closer).sum(axis=1) * saliency[open_]
            exact[open_] = True
            block *= 2
        picks.append(pick)
        bound[pick] = -np.inf
        covered = np.maximum(covered, similarities[pick])
        exact = bound <= 0  # no gain is below 0; kept tokens have minus infinity
    return torch.tensor(picks, dtype=torch.int64)


def _greedy(similarities: Tensor, saliency: Tensor, steps: int) -> Tensor:
    """(b, steps) tokens in the order of their selection, from (b, T, T) and (b, T)."""
    batch, tokens = saliency.shape
    covered = torch.zeros_like(saliency)  # each token's similarity to its nearest kept one
    free = torch.ones_like(saliency, dtype=torch.bool)
    closer = torch.empty_like(similarities)
    picks = []
    for _ in range(steps):
        torch.sub(similarities, covered[:, :, None], out=closer)
        gain = closer.clamp_(min=0).sum(dim=1) * saliency
        pick = gain.masked_fill(~free, -torch.inf).argmax(dim=1, keepdim=True)
        picks.append(pick)
        free.scatter_(1, pick, False)
        nearest = similarities.gather(2, pick[:, :, None].expand(batch, tokens, 1))[:, :, 0]
        covered = torch.maximum(covered, nearest)
    return torch.cat(picks, dim=1)
