"""Schedules of dropping tokens, and the counts per layer that meet a budget.

Published schedules are for a decoder of 32 layers; `scaled` adapts them to another depth.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prunesid.core.delayed import Tensor, torch
from prunesid.core.numerics import PROBABILITY_GRID, on_grid, rank_descending
from prunesid.core.parameters import Param
from prunesid.methods.registry import Upstream

if TYPE_CHECKING:
    from prunesid.methods.decoder.view import View

PUBLISHED_DEPTH = 32

POSITIONS = ("original", "renumbered")
ORIGINAL = Param("original", str, POSITIONS)
# The meaning of a budget: the mean over layers, or the number that enters layers after the first K.
BUDGET_COUNTS = Param("mean", str, ("mean", "after"))
# For methods that drop tokens once; their authors count the tokens after the second layer.
ONCE = {
    "k": Upstream(
        2, "by default 2 of 32 layers, scaled: the same share of any decoder sees all tokens"
    ),
    "budget_counts": Upstream(
        "after", "a mean over layers compares with budgets of methods before the language model"
    ),
}
# None: renumbered, as published, if a token has one position (`DecoderShape.numbering`).
RENUMBERED = Param(None, str, POSITIONS)
DEPTHS = Param("scaled", str, ("scaled", "published"))


@dataclass(frozen=True)
class DecoderShape:
    """The decoder's layers, the visual tokens that enter the first, and a token's rotary positions.

    A token has 1 rotary position, or 3 in M-RoPE: time, row and column.
    """

    depth: int
    tokens: int
    axes: int = 1

    @property
    def numbering(self) -> str:
        """The positions for methods that renumber tokens: "renumbered" if the decoder allows it."""
        return "renumbered" if self.axes == 1 else "original"


@dataclass(frozen=True, eq=False)
class Choice:
    """The choice at one stage among the V visual tokens of one prompt.

    keep       (k,) int64 places of the kept tokens, ascending
    merged     (m, E + X) new tokens made of `View.tokens`; they follow the kept ones. None: none
    positions  (m, P) int64 rotary positions of the new tokens; without effect if renumbered
    macs       multiply-adds of choosing
    """

    keep: Tensor
    merged: Tensor | None = None
    positions: Tensor | None = None
    macs: int = 0


@dataclass(frozen=True)
class Stage:
    """One dropping of tokens, between layer `after` (0-based) and the next.

    leaves  visual tokens that go on, merged ones included; None if it depends on the prompt
    """

    after: int
    choose: Callable[[View], Choice]
    leaves: int | None = None


@dataclass(frozen=True)
class Schedule:
    """The stages, by ascending layer; without any, all tokens stay.

    positions    "original": a token keeps its rotary positions. "renumbered": the tokens that go on
                 are numbered anew from 0 at each stage, if a token has one position
    shrink_from  first layer whose KV cache also loses the tokens that are dropped after later
                 layers; they leave before the first new token is decoded. None: no cache shrinks
    """

    stages: tuple[Stage, ...] = ()
    positions: str = "original"
    shrink_from: int | None = None

    def entering(self, shape: DecoderShape) -> tuple[int, ...] | None:
        """Visual tokens that enter each layer; None if they depend on the prompt."""
        counts = [shape.tokens] * shape.depth
        for stage in self.stages:
            if stage.leaves is None:
                return None
            counts[stage.after + 1 :] = [stage.leaves] * (shape.depth - stage.after - 1)
        return tuple(counts)


def check_positions(positions: object, axes: int) -> None:
    """Raise ValueError if tokens of several rotary positions would be renumbered."""
    if positions == "renumbered" and axes > 1:
        raise ValueError(
            "positions: 'renumbered' has no meaning where a token has several rotary positions "
            "(time, row, column): they are not its place in the sequence. Available: original."
        )


def scaled(layers: int, depth: int) -> int:
    """The number of layers in a decoder of `depth` that matches `layers` of 32; at least 1."""
    return max(1, round(layers * depth / PUBLISHED_DEPTH))


def scaled_stages(layers: Sequence[int], depth: int) -> tuple[int, ...]:
    """Numbers of layers before each stage, scaled to `depth`, ascending without repetition.

    In a shallow decoder, stages for which there are no layers are left out, the last ones first.
    """
    found: list[int] = []
    for number in layers:
        found.append(max(scaled(number, depth), found[-1] + 1 if found else 1))
    return tuple(number for number in found if number < depth)


def stage_starts(layers: Sequence[int], shape: DecoderShape, depths: str) -> tuple[int, ...]:
    """Numbers of layers before each stage: `layers` as "published", or "scaled" from 32.

    ValueError if the decoder is too shallow for any stage.
    """
    if depths == "scaled":
        found = scaled_stages(layers, shape.depth)
    else:
        found = tuple(number for number in layers if number < shape.depth)
    if not found:
        raise ValueError(
            "a decoder of one layer has no place to drop tokens at"
            if shape.depth == 1
            else f"depths: the published stages come after {', '.join(map(str, layers))} layers; "
            f"this decoder has {shape.depth}. With 'scaled' they fit."
        )
    return found


def full_layers(shape: DecoderShape, given: int | None, published: int) -> int:
    """K, the number of layers that see all tokens: `given`, or the published one, scaled."""
    layers = scaled(published, shape.depth) if given is None else given
    if layers >= shape.depth:
        raise ValueError(
            f"k: after {layers} layers a decoder of {shape.depth} has none left to drop tokens "
            f"for; possible are 1 to {shape.depth - 1}"
            if shape.depth > 1
            else "a decoder of one layer has no place to drop tokens at"
        )
    return layers


def tokens_after(
    method: str, shape: DecoderShape, layers: int, budget: int | None, keep: int | None, counts: str
) -> int:
    """R, the number of visual tokens that enter every layer after the first K = `layers`.

    R is `keep`, or follows from the budget N by `counts`. "after": R = N. "mean": the mean over
    layers is nearest to N, R = (L N - T K) / (L - K). ValueError if there is no such R >= 1, or
    unless exactly one of budget and `keep` is given.
    """
    if (budget is None) == (keep is None):
        raise ValueError(f"{method} takes either a budget or keep, exactly one of them")
    given = budget if counts == "after" and keep is None else keep
    if given is not None:
        return min(given, shape.tokens)
    after = shape.depth - layers
    wanted = round((shape.depth * (budget or 0) - shape.tokens * layers) / after)
    if wanted < 1:
        smallest = (shape.tokens * layers + after) / shape.depth
        fewer = f", or with k below {layers}" if layers > 1 else ""
        raise infeasible(method, shape, budget or 0, layers, smallest, fewer)
    return wanted


def infeasible(
    method: str, shape: DecoderShape, budget: int, layers: int, smallest: float, otherwise: str = ""
) -> ValueError:
    """The error for a budget below `smallest`, the least mean if all tokens enter `layers` layers.

    otherwise  another way out, appended to the message
    """
    cost = shape.tokens * layers / shape.depth
    return ValueError(
        f"budget {budget}: {method} on {shape.depth} layers shows all {shape.tokens} tokens to the "
        f"first {layers}, which alone is a mean of {cost:.1f} tokens per layer; the smallest "
        f"possible budget is {math.ceil(smallest)}{otherwise}"
    )


def mean_entering(shape: DecoderShape, starts: Sequence[int], counts: Sequence[int]) -> float:
    """Mean over layers of the tokens that enter: T at first, `counts[i]` from `starts[i]` on."""
    ends = [*starts[1:], shape.depth]
    after = sum(n * (end - start) for n, start, end in zip(counts, starts, ends, strict=True))
    return (shape.tokens * starts[0] + after) / shape.depth


def top(score: Tensor, count: int) -> Tensor:
    """Places, ascending, of the `count` highest values of `score` (V,), float64 attention.

    Ties go to the lower place.
    """
    rank = rank_descending(on_grid(score, PROBABILITY_GRID)[None])[0]
    return torch.nonzero(rank < count)[:, 0]
