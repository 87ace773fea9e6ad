"""MustDrop (2024), its stages inside the language model: tokens that no word looks at go.

After each of four layers a visual token is dropped if its attention from the text tokens behind the
image (mean over heads) is small in both senses: the sum over text is below `global_threshold` times
the total over visual tokens, AND its maximum over text is below `individual_threshold`. The key
set, the ceil(0.08 T) tokens of highest CLS attention in the vision tower (upstream: its last
block, mean over heads), is never dropped: no stage goes below it. Positions are renumbered (in
M-RoPE they stay). Before decoding, what was dropped also leaves the KV cache of the earlier layers
(`shrink_cache`).

Both conditions in one number: a token stays if max(sum / (global t. * total), max / individual t.)
is at least 1. Upstream's thresholds are tuned per budget and benchmark; for TextVQA 192: 0.001,
0.001; 128: 0.0012, 0.001; 64: 0.011, 0.01. Counts follow from the prompt, so that a budget only
names the thresholds and the mean that was hit is reported. That is `rule="thresholds"`. With
`rule="budget"` both thresholds are scaled together, per prompt and stage, until T r, T r^2, T r^3,
T r^4 tokens stay (not fewer than the key set), with the r whose mean over layers is the budget.

Layers 2, 6, 10, 14 of 32; for another depth L the 3, 7, 11 and 15 layers before the stages become
round(3 L / 32), ..., at least one more each time; stages that find no room fall away.

Not here: stage 1, which merges windows inside the vision tower. Read so: "total" is the sum over
the visual tokens present at the stage and all text tokens. Different from upstream: `key_share=0`
goes without the key set; a tower without CLS gives the attention that its patches receive; a new
token's position follows the last one of each layer's own numbering.
"""

from __future__ import annotations

import math

import torch

from prunesid.late import register
from prunesid.late.schedule import (
    RENUMBERED,
    Choice,
    Schedule,
    Shape,
    Stage,
    infeasible,
    mean_entering,
    scaled_stages,
    top,
)
from prunesid.late.view import View
from prunesid.methods import NO_NEEDS, Needs
from prunesid.numerics import on_grid
from prunesid.parameters import Param
from prunesid.parametric import Resolved
from prunesid.registry import unknown

PUBLISHED = {192: (0.001, 0.001), 128: (0.0012, 0.001), 64: (0.011, 0.01)}
"""Budget: global and individual threshold."""
LAYERS = (3, 7, 11, 15)
"""Layers before each stage, of 32."""


def _needs(params: Resolved) -> Needs:
    return Needs(last_cls_attention=True) if params["key_share"] else NO_NEEDS


@register(
    "mustdrop",
    params={
        "rule": Param("thresholds", str, ("thresholds", "budget")),
        "global_threshold": Param(None, float, minimum=0.0),
        "individual_threshold": Param(None, float, minimum=0.0),
        "key_share": Param(0.08, float, minimum=0.0),
        "shrink_cache": Param(True, bool),
        "positions": RENUMBERED,
    },
    needs=_needs,
)
def mustdrop(
    shape: Shape,
    budget: int | None,
    *,
    rule: str,
    global_threshold: float | None,
    individual_threshold: float | None,
    key_share: float,
    shrink_cache: bool,
    positions: str | None,
) -> Schedule:
    """Drop what is below the thresholds, or (`rule="budget"`) what meets the budget."""
    thresholds = _thresholds(rule, budget, global_threshold, individual_threshold)
    starts = scaled_stages(LAYERS, shape.depth)
    if not starts:
        raise ValueError("a decoder of one layer has no place to drop tokens at")
    keys = math.ceil(key_share * shape.tokens)
    counts: list[int | None] = [None] * len(starts)
    if rule == "budget":
        if budget is None:
            raise ValueError("mustdrop needs a budget with rule='budget'")
        counts = [*_geometric(shape, starts, budget, keys)]

    def stage(start: int, count: int | None) -> Stage:
        def choose(view: View) -> Choice:
            return _choose(view, thresholds, keys, count)

        return Stage(start - 1, choose, leaves=count)

    stages = tuple(stage(start, count) for start, count in zip(starts, counts, strict=True))
    return Schedule(stages, positions or shape.numbering, shrink_cache)


def _thresholds(
    rule: str, budget: int | None, overall: float | None, individual: float | None
) -> tuple[float, float]:
    if (overall is None) != (individual is None):
        raise ValueError("mustdrop: give both thresholds, or neither")
    if overall is not None and individual is not None:
        if not (overall and individual):
            raise ValueError("mustdrop: thresholds must be above 0")
        return overall, individual
    if rule == "budget" and budget is not None:
        return PUBLISHED[min(PUBLISHED, key=lambda known: abs(known - budget))]
    if budget not in PUBLISHED:
        known = unknown("published budget of mustdrop", budget, map(str, PUBLISHED))
        raise ValueError(f"{known} For others give both thresholds, or rule='budget'.")
    return PUBLISHED[budget]


def _choose(view: View, thresholds: tuple[float, float], keys: int, count: int | None) -> Choice:
    attention = view.attention()
    overall, individual = thresholds
    total = attention.sum(dim=0)
    score = on_grid(torch.maximum(
        total / (overall * total.sum()), attention.amax(dim=0) / individual
    ))  # fmt: skip
    protected = torch.zeros_like(score, dtype=torch.bool)
    if keys:
        if view.cls_attention is None:
            raise ValueError("mustdrop needs the CLS attention of the images, or key_share=0")
        important = top(on_grid(view.cls_attention.double()), keys)
        protected = torch.isin(view.source, important)
    if count is None:
        keep = torch.nonzero((score >= 1) | protected)[:, 0]
    else:
        keep = top(score.masked_fill(protected, torch.inf), max(count, int(protected.sum())))
    return Choice(keep, macs=view.attention_macs(len(attention)))


def _geometric(shape: Shape, starts: tuple[int, ...], budget: int, keys: int) -> list[int]:
    """Counts T r, T r^2, ... of the mean nearest to the budget, none below `keys` or 1."""
    floor = max(1, keys)

    def counts(step: int) -> list[int]:
        ratio = step / 4096
        powers = range(1, len(starts) + 1)
        return [max(floor, round(shape.tokens * ratio**power)) for power in powers]

    smallest = mean_entering(shape, starts, counts(0))
    if budget < smallest:
        fewer = ", or with a smaller key_share" if keys > 1 else ""
        raise infeasible("mustdrop", shape, budget, starts[0], smallest, fewer)
    return min(
        map(counts, range(4097)),
        key=lambda found: abs(mean_entering(shape, starts, found) - budget),
    )
