"""MustDrop (Liu et al., 2024), stages 2 and 3: tokens that no word attends to are dropped.

Stage 2: after each of four layers a visual token is dropped if its attention from the text tokens
after the image (mean over heads) is small in two ways. Its sum over text is below
`global_threshold` times the total, AND its maximum over text is below `individual_threshold`. The
total is over the visual tokens present at the stage and all text tokens. The key set is never
dropped: the ceil(0.08 T) tokens of highest CLS attention in the vision tower's last block (mean
over heads). Positions are renumbered from 0 (in M-RoPE they stay).

Stage 3: before decoding, tokens dropped in stage 2 also leave the KV caches of earlier layers, from
the first pruned layer on. The layers before that one (0 and 1 of 32) keep all tokens, as upstream.

Stage 1 is NOT implemented. There upstream merges every 3 x 3 window of patches whose mean pairwise
cosine similarity after block 0 of the tower is at least 0.8 into their mean. The number of windows
depends on the image, so no budget and no plan can tell it beforehand. An arm of this method is
MustDrop without stage 1, and its label in the studies says so.

Upstream's thresholds are tuned per budget and benchmark; for TextVQA they are 192: 0.001, 0.001;
128: 0.0012, 0.001; 64: 0.011, 0.01. With `rule="thresholds"` a budget only names the thresholds.
Counts depend on the prompt, and the realized mean is reported. With `rule="budget"` (ours) the
tokens are ranked by max(sum / (global t. * total), max / individual t.), which is at least 1 for
tokens that the thresholds keep. Then T r, T r^2, T r^3, T r^4 of them stay (at least the key set),
with the r whose mean over layers is the budget.

The stages come after layers 2, 6, 10, 14 of 32 (0-based). For another depth L the 3, 7, 11 and 15
layers before the stages become round(3 L / 32), ..., at least one more each time
(`depths="published"` keeps 3, 7, 11 and 15). Stages for which there are no layers are left out.

Source: github.com/liuting20/MustDrop at 909afa5, files
llava/model/language_model/modelling_sparse_llama.py and
llava/model/multimodal_encoder/clip_encoder.py. Differences from upstream besides stage 1:
`key_share=0` omits the key set. For a tower without CLS, the attention that its patches receive
takes the place of CLS attention. A new token's position follows the last one in each layer's own
numbering.
"""

from __future__ import annotations

import math

from prunesid.core.delayed import torch
from prunesid.core.needs import NO_NEEDS, Needs
from prunesid.core.parameters import Param
from prunesid.core.registry import unknown
from prunesid.methods.decoder import register
from prunesid.methods.decoder.schedule import (
    DEPTHS,
    RENUMBERED,
    Choice,
    DecoderShape,
    Schedule,
    Stage,
    infeasible,
    mean_entering,
    stage_starts,
    top,
)
from prunesid.methods.decoder.view import View
from prunesid.methods.registry import Resolved, Source, Upstream

PUBLISHED = {192: (0.001, 0.001), 128: (0.0012, 0.001), 64: (0.011, 0.01)}
"""Global and individual threshold for each budget."""
LAYERS = (3, 7, 11, 15)
"""Number of layers, of 32, before each stage."""


def _needs(params: Resolved) -> Needs:
    return Needs(last_cls_attention=True) if params["key_share"] else NO_NEEDS


@register(
    "mustdrop",
    params={
        "rule": Param("thresholds", str, ("thresholds", "budget")),
        "global_threshold": Param(None, float, minimum=0.0),
        "individual_threshold": Param(None, float, minimum=0.0),
        "key_share": Param(0.08, float, minimum=0.0),
        "depths": DEPTHS,
        "shrink_cache": Param(True, bool),
        "positions": RENUMBERED,
    },
    needs=_needs,
    source=Source(
        title="Multi-Stage Vision Token Dropping: Towards Efficient Multimodal Large Language "
        "Model",
        venue="2024",
        repository="liuting20/MustDrop",
        upstream={
            "depths": Upstream(
                "published",
                "3, 7, 11 and 15 of 32 layers, scaled: the stages come after the same shares of "
                "any decoder",
            ),
        },
    ),
)
def mustdrop(
    shape: DecoderShape,
    budget: int | None,
    *,
    rule: str,
    global_threshold: float | None,
    individual_threshold: float | None,
    key_share: float,
    depths: str,
    shrink_cache: bool,
    positions: str | None,
) -> Schedule:
    """Drop tokens below the thresholds, or as many as the budget requires.

    rule          "thresholds", or "budget", see the module
    global_threshold, individual_threshold  the two thresholds, by default those for the budget
    key_share     share of the tokens that are never dropped
    depths        layers before the stages: "scaled" to the decoder's depth, or "published"
    shrink_cache  whether dropped tokens leave the KV caches of earlier layers (stage 3)
    positions     rotary positions of the tokens that go on: "renumbered" or "original"
    """
    thresholds = _thresholds(rule, budget, global_threshold, individual_threshold)
    starts = stage_starts(LAYERS, shape, depths)
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
    shrink_from = stages[0].after if shrink_cache else None
    return Schedule(stages, positions or shape.numbering, shrink_from)


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
    total, most = attention.sum(dim=0), attention.amax(dim=0)
    limit = overall * total.sum()
    protected = torch.zeros_like(total, dtype=torch.bool)
    if keys:
        if view.cls_attention is None:
            raise ValueError("mustdrop needs the CLS attention of the images, or key_share=0")
        important = top(view.cls_attention.double(), keys)
        protected = torch.isin(view.source, important)
    if count is None:
        keep = torch.nonzero((total >= limit) | (most >= individual) | protected)[:, 0]
    else:
        score = torch.maximum(total / limit, most / individual)
        keep = top(score.masked_fill(protected, torch.inf), max(count, int(protected.sum())))
    return Choice(keep, macs=view.attention_macs(len(attention)))


def _geometric(shape: DecoderShape, starts: tuple[int, ...], budget: int, keys: int) -> list[int]:
    """Counts T r, T r^2, ..., none below `keys` or 1, whose mean is nearest to the budget."""
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
