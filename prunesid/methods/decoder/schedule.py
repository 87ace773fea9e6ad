"""When tokens are dropped, and how a budget becomes the counts that meet it.

A published schedule belongs to a decoder of 32 layers; `scaled` carries it to another depth.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from prunesid.core.numerics import PROBABILITY_GRID, on_grid, rank_descending
from prunesid.core.parameters import Param
from prunesid.core.parametric import Upstream

if TYPE_CHECKING:
    from prunesid.methods.decoder.view import View

PUBLISHED_DEPTH = 32

POSITIONS = ("original", "renumbered")
ORIGINAL = Param("original", str, POSITIONS)
# What a budget is: the mean over layers, or what goes on to the layers after the first K.
BUDGET_COUNTS = Param("mean", str, ("mean", "after"))
# Of methods that drop tokens once: their authors count what is left after the second layer.
ONCE = {
    "k": Upstream(
        2, "by default 2 of 32 layers, scaled: the same share of any decoder sees all tokens"
    ),
    "budget_counts": Upstream(
        "after", "a mean over layers stands beside the budgets of methods before the language model"
    ),
}
# Renumbered, as published, where a token has one position: `Shape.numbering`.
RENUMBERED = Param(None, str, POSITIONS)
DEPTHS = Param("scaled", str, ("scaled", "published"))


@dataclass(frozen=True)
class Shape:
    """What a schedule depends on: layers of the decoder, visual tokens entering the first, rotary
    positions of a token (3 in M-RoPE: time, row and column)."""

    depth: int
    tokens: int
    axes: int = 1

    @property
    def numbering(self) -> str:
        """The positions of methods that renumber tokens, as far as the decoder lets them."""
        return "renumbered" if self.axes == 1 else "original"


@dataclass(frozen=True, eq=False)
class Choice:
    """What becomes of the V visual tokens of one prompt.

    keep       (k,) int64 places among them, ascending
    merged     (m, E + X) new tokens, made of `View.tokens`, which follow the kept ones, or None
    positions  (m, P) int64 rotary positions of the new tokens; where positions are renumbered they
               have no effect
    macs       multiply-adds that choosing took
    """

    keep: Tensor
    merged: Tensor | None = None
    positions: Tensor | None = None
    macs: int = 0


@dataclass(frozen=True)
class Stage:
    """Tokens are dropped between layer `after` (0-based) and the next.

    leaves  visual tokens that go on, merged ones included; None where the prompt decides it
    """

    after: int
    choose: Callable[[View], Choice]
    leaves: int | None = None


@dataclass(frozen=True)
class Schedule:
    """The stages, by ascending layer; without any, all tokens stay.

    positions     "original": a token keeps its rotary positions; "renumbered": those that go on are
                  numbered anew from 0 at each stage, where a token has one position
    shrink_from   first layer from whose KV cache tokens that are dropped after later layers leave too,
                  before the first new token is decoded; None: no cache shrinks
    """

    stages: tuple[Stage, ...] = ()
    positions: str = "original"
    shrink_from: int | None = None

    def entering(self, shape: Shape) -> tuple[int, ...] | None:
        """Visual tokens entering each layer; None where it depends on the prompt."""
        counts = [shape.tokens] * shape.depth
        for stage in self.stages:
            if stage.leaves is None:
                return None
            counts[stage.after + 1 :] = [stage.leaves] * (shape.depth - stage.after - 1)
        return tuple(counts)


def check_positions(positions: object, axes: int) -> None:
    """ValueError where tokens of several rotary positions would be renumbered."""
    if positions == "renumbered" and axes > 1:
        raise ValueError(
            "positions: 'renumbered' has no meaning where a token has several rotary positions "
            "(time, row, column): they are not its place in the sequence. Available: original."
        )


def scaled(layers: int, depth: int) -> int:
    """The first `layers` of 32, as a number of layers of a decoder of `depth`; at least 1."""
    return max(1, round(layers * depth / PUBLISHED_DEPTH))


def scaled_stages(layers: Sequence[int], depth: int) -> tuple[int, ...]:
    """Numbers of layers before each stage, scaled to `depth`, ascending without repetition.

    Stages that a shallow decoder has no room for fall away, the last ones first.
    """
    found: list[int] = []
    for number in layers:
        found.append(max(scaled(number, depth), found[-1] + 1 if found else 1))
    return tuple(number for number in found if number < depth)


def stage_starts(layers: Sequence[int], shape: Shape, depths: str) -> tuple[int, ...]:
    """Numbers of layers before each stage: `layers` of 32 by "scaled", or just these by "published".

    ValueError where a decoder has room for none.
    """
    if depths == "scaled":
        found = scaled_stages(layers, shape.depth)
    else:
        found = tuple(number for number in layers if number < shape.depth)
    if not found:
        raise ValueError(
            "a decoder of one layer has no place to drop tokens at"
            if shape.depth == 1
            else f"depths: the published stages come after {', '.join(map(str, layers))} layers; this "
            f"decoder has {shape.depth}. With 'scaled' they fit."
        )
    return found


def full_layers(shape: Shape, given: int | None, published: int) -> int:
    """The number K of layers that see all tokens: `given`, or the published one, scaled."""
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
    method: str, shape: Shape, layers: int, budget: int | None, keep: int | None, counts: str
) -> int:
    """The count R that enters every layer after the first K = `layers`.

    Either `keep`, or what the budget N means by `counts`: "after" is R = N, "mean" the R that brings
    the mean over layers nearest to N, R = (L N - T K) / (L - K). ValueError if no R >= 1 does, or
    unless exactly one of budget and `keep` is given.
    """
    if (budget is None) == (keep is None):
        raise ValueError(f"{method} takes either a budget or keep, not both and not neither")
    given = budget if counts == "after" and keep is None else keep
    if given is not None:
        return min(given, shape.tokens)
    behind = shape.depth - layers
    wanted = round((shape.depth * (budget or 0) - shape.tokens * layers) / behind)
    if wanted < 1:
        smallest = (shape.tokens * layers + behind) / shape.depth
        fewer = f", or with k below {layers}" if layers > 1 else ""
        raise infeasible(method, shape, budget or 0, layers, smallest, fewer)
    return wanted


def infeasible(
    method: str, shape: Shape, budget: int, layers: int, smallest: float, otherwise: str = ""
) -> ValueError:
    """The error for a mean that the first `layers`, which see all tokens, already exceed."""
    cost = shape.tokens * layers / shape.depth
    return ValueError(
        f"budget {budget}: {method} on {shape.depth} layers shows all {shape.tokens} tokens to the "
        f"first {layers}, which alone is a mean of {cost:.1f} tokens per layer; the smallest "
        f"possible budget is {math.ceil(smallest)}{otherwise}"
    )


def mean_entering(shape: Shape, starts: Sequence[int], counts: Sequence[int]) -> float:
    """Mean over layers where the counts enter the layers from `starts` on, and T those before."""
    ends = [*starts[1:], shape.depth]
    behind = sum(n * (end - start) for n, start, end in zip(counts, starts, ends, strict=True))
    return (shape.tokens * starts[0] + behind) / shape.depth


def top(score: Tensor, count: int) -> Tensor:
    """Places of the `count` highest of `score` (V,) float64, an attention, ascending; ties to the
    lower place."""
    rank = rank_descending(on_grid(score, PROBABILITY_GRID)[None])[0]
    return torch.nonzero(rank < count)[:, 0]
