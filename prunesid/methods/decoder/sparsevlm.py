"""SparseVLM v1.5 (ICML 2025): tokens that the question's relevant words attend to; others merge.

Raters are the text tokens after the image that resemble the visual tokens more than average: m is
the mean over visual tokens of softmax over text of E_v . E_t, at the decoder's input, and raters
have m > mean(m). There are three stages, each after a layer. At a stage, p is the attention (mean
over heads and raters) to each visual token, and the b tokens of highest p stay. Of the n dropped
tokens, the r = int(0.3 n) + 1 of highest p are recycled: they merge into int(r / 10) + 1
density-peak clusters (with as many neighbors as clusters). The clusters' means follow the kept
tokens, the cluster of highest score first, and count as visual tokens from then on. Then all
positions are renumbered from 0. With `positions="original"`, as in v2.0, tokens keep their
positions, and a merged token gets its center's. In M-RoPE, where a position is a time, a row and a
column, this is always so.

Budgets: upstream drops after layers 2, 6 and 15 of 32, with b from a list: 192: 300, 200, 110;
128: 303, 110, 36; 96: 238, 48, 26; 64: 66, 30, 17. Three layers see all 576 tokens, and clusters
come on top. So the mean over layers is 206, 145 and 82, not 192, 128 and 64. `lists="published"`
restores these lists. The default `lists="solved"` takes the nearest published list (64, 96, 128 or
192 of 576 tokens, as a share), scales its three numbers by one factor and rounds them. The factor
is the one whose mean over layers, clusters included, is nearest to the budget. For another depth L
the 3, 7 and 16 layers before the stages become round(3 L / 32), ..., at least one more each time
(`depths="published"` keeps 3, 7 and 16). Stages for which there are no layers are left out.

Differences from upstream: if no text token is above average, all are raters. Nothing is recycled if
nothing was dropped. The noise of 1e-6 on the densities is a fixed sequence, so the method is
deterministic. A new token's position follows the last one in each layer's own numbering. Ties go to
the lower index. v2.0's de-rotated attention and heads are not implemented.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from prunesid.core.delayed import Tensor, torch
from prunesid.core.numerics import PROBABILITY_GRID, on_grid, rank_descending
from prunesid.core.parameters import Param
from prunesid.core.registry import unknown
from prunesid.methods.decoder import register
from prunesid.methods.decoder.clusters import cluster_means, density_peaks
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
from prunesid.methods.registry import Source, Upstream

PUBLISHED = {
    192: (300, 200, 110),
    128: (303, 110, 36),
    96: (238, 48, 26),
    64: (66, 30, 17),
}
PUBLISHED_TOKENS = 576
LAYERS = (3, 7, 16)
"""Number of layers, of 32, before each stage."""


@register(
    "sparsevlm",
    params={
        "lists": Param("solved", str, ("solved", "published")),
        "depths": DEPTHS,
        "recycle": Param(True, bool),
        "noise": Param(1e-6, float, minimum=0.0),
        "positions": RENUMBERED,
    },
    source=Source(
        title="SparseVLM: Visual Token Sparsification for Efficient Vision-Language Model "
        "Inference",
        venue="ICML 2025",
        repository="Gumpest/SparseVLMs",
        commit="26a5f48813c46cd1c7364160354e7fdd3febaa67",
        golden=("sparsevlm",),
        upstream={
            "lists": Upstream(
                "published",
                "the published lists miss their budgets by 7 to 28 % and exist for four of them",
            ),
            "depths": Upstream(
                "published",
                "3, 7 and 16 of 32 layers, scaled: the stages come after the same shares of any "
                "decoder",
            ),
        },
    ),
)
def sparsevlm(
    shape: DecoderShape,
    budget: int | None,
    *,
    lists: str,
    depths: str,
    recycle: bool,
    noise: float,
    positions: str | None,
) -> Schedule:
    """Keep b tokens at each stage.

    lists      source of the three b: "solved" (by the budget) or "published"
    depths     layers before the stages: "scaled" to the decoder's depth, or "published"
    recycle    whether the best of the dropped tokens are merged and go on
    noise      scale of the noise on the densities, see `density_peaks`
    positions  rotary positions of the tokens that go on: "renumbered" or "original"
    """
    if budget is None:
        raise ValueError("sparsevlm needs a budget")
    starts = stage_starts(LAYERS, shape, depths)
    if lists == "published":
        kept = _published(budget)
    else:
        kept = _solved(shape, tuple(starts), budget, recycle)
    leaves = _leaving(shape.tokens, kept[: len(starts)], recycle)

    def stage(start: int, count: int, left: int) -> Stage:
        def choose(view: View) -> Choice:
            return _choose(view, count, recycle, noise)

        return Stage(start - 1, choose, leaves=left)

    stages = tuple(stage(*each) for each in zip(starts, kept, leaves, strict=False))
    return Schedule(stages, positions or shape.numbering)


def recycled(dropped: int) -> tuple[int, int]:
    """(recycled tokens, clusters) for a number of dropped tokens."""
    if dropped <= 0:
        return 0, 0
    best = int(0.3 * dropped) + 1
    return best, int(best / 10) + 1


def raters(visual: Tensor, text: Tensor) -> Tensor:
    """Places of the tokens of `text` (A, E) that are relevant for `visual` (T, E), ascending."""
    likeness = visual.double() @ text.double().T
    mean = on_grid(likeness.softmax(dim=1).mean(dim=0), PROBABILITY_GRID)
    # A difference of two steps is rounding, not relevance.
    chosen = torch.nonzero(mean - mean.mean() > 2 * PROBABILITY_GRID)[:, 0]
    return chosen if len(chosen) else torch.arange(len(text), device=text.device)


def _choose(view: View, count: int, recycle: bool, noise: float) -> Choice:
    rows = raters(view.inputs, view.text_inputs)
    score = view.attention(rows).mean(dim=0)
    keep = top(score, count)
    macs = view.inputs.numel() * len(view.text_inputs) + view.attention_macs(len(rows))
    best, clusters = recycled(len(score) - len(keep)) if recycle else (0, 0)
    if not best:
        return Choice(keep, macs=macs)
    rest = torch.ones(len(score), dtype=torch.bool, device=score.device)
    rest[keep] = False
    dropped = torch.nonzero(rest)[:, 0]
    # The best first, since the order decides ties between cluster centers.
    order = rank_descending(on_grid(score[dropped], PROBABILITY_GRID)[None])[0].argsort()
    again = dropped[order[:best]]
    states = view.hidden[again]
    centers, member = density_peaks(states, clusters, noise=noise)
    return Choice(
        keep,
        merged=cluster_means(view.tokens[again], member, clusters),
        positions=view.position[again[centers]],
        macs=macs + best * states.numel(),
    )


def _leaving(tokens: int, kept: Sequence[int], recycle: bool) -> list[int]:
    """Number of visual tokens after each stage, clusters included."""
    counts = []
    for count in kept:
        stays = min(count, tokens)
        tokens = stays + (recycled(tokens - stays)[1] if recycle else 0)
        counts.append(tokens)
    return counts


def _published(budget: int) -> tuple[int, ...]:
    if budget not in PUBLISHED:
        choices = map(str, PUBLISHED)
        raise ValueError(unknown("published budget of sparsevlm", budget, choices))
    return PUBLISHED[budget]


# Cached: a call tries up to a thousand lists, and calls with the same arguments are frequent.
@cache
def _solved(
    shape: DecoderShape, starts: tuple[int, ...], budget: int, recycle: bool
) -> tuple[int, ...]:
    share = budget * PUBLISHED_TOKENS / shape.tokens
    pattern = PUBLISHED[min(PUBLISHED, key=lambda known: abs(known - share))][: len(starts)]

    def counts(first: int) -> tuple[int, ...]:
        return tuple(
            min(shape.tokens, max(1, round(first * part / pattern[0]))) for part in pattern
        )

    def mean(kept: tuple[int, ...]) -> float:
        return mean_entering(shape, starts, _leaving(shape.tokens, kept, recycle))

    smallest = mean(counts(1))
    if budget < smallest:
        raise infeasible("sparsevlm", shape, budget, starts[0], smallest)
    # Large enough for even the last number to reach all tokens.
    last = -(-shape.tokens * pattern[0] // pattern[-1])
    return min(map(counts, range(1, last + 1)), key=lambda kept: abs(mean(kept) - budget))
