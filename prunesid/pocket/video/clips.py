"""Descriptions of clips, sampled from a seed, and their frames.

A clip shows three to six shapes on a still background. Each has one thing that it does: it stays,
it moves in a straight line, it is there for a while, or it comes and goes several times. A clip's
kind says which of these occur. No two shapes share both color and shape, and no paths cross.

A model sees MOMENTS frames. Files have one more between each two of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from prunesid.pocket.drawing import draw_frames
from prunesid.pocket.scenes import Background, Shape, choice, log_uniform
from prunesid.pocket.vocabulary import BACKGROUNDS, COLOR_NAMES, DIRECTIONS, NUMBERS, SHAPES

SIDE = 224
MOMENTS = 8
KINDS = ("motion", "repetition", "change", "order")
STEP = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
SIZES = (28, 46)  # diameters, px
TRAVEL = (70, 120)  # px from the first moment to the last
VISIT = 2  # moments that the shapes of an `order` clip are there
_GAP = 3  # px between paths
ALWAYS = (True,) * MOMENTS


@dataclass(frozen=True)
class Actor:
    """A shape, as it is at the first moment, and what it does.

    direction, travel  where it moves, and how far in all (px); "" and 0 if it stays
    shown              whether it is there, for each of the MOMENTS
    """

    shape: Shape
    direction: str = ""
    travel: float = 0.0
    shown: tuple[bool, ...] = ALWAYS

    @property
    def name(self) -> str:
        return self.shape.name

    @property
    def times(self) -> int:
        """How many times it is there without a break."""
        return sum(now and not before for before, now in pairwise((False, *self.shown)))

    @property
    def first(self) -> int:
        return self.shown.index(True)

    @property
    def last(self) -> int:
        return MOMENTS - 1 - self.shown[::-1].index(True)

    def at(self, time: float) -> Shape | None:
        """The shape at a time in moments, or None if it is not there then."""
        if not self.shown[int(time)]:
            return None
        dx, dy = STEP.get(self.direction, (0, 0))
        way = self.travel * time / (MOMENTS - 1)
        return replace(self.shape, x=self.shape.x + dx * way, y=self.shape.y + dy * way)


@dataclass(frozen=True)
class Film:
    """The content of one clip; `kind` is one of KINDS."""

    kind: str
    background: Background
    actors: tuple[Actor, ...]


def _flashes(rng: np.random.Generator, times: int) -> tuple[bool, ...]:
    """Presence at `times` single moments, no two of them adjacent."""
    while True:
        at = set(rng.permutation(MOMENTS)[:times].tolist())
        if not any(moment + 1 in at for moment in at):
            return tuple(moment in at for moment in range(MOMENTS))


_NOWHERE = Shape("", "", 0, 0, 0)


def _roles(rng: np.random.Generator, kind: str) -> list[Actor]:
    """What the actors of a clip do, without looks and places; the clip's own kind comes first."""

    def moves(direction: str) -> Actor:
        return Actor(_NOWHERE, direction, float(rng.uniform(*TRAVEL)))

    def since(start: int, stop: int) -> Actor:
        return Actor(_NOWHERE, shown=tuple(start <= t < stop for t in range(MOMENTS)))

    directions = rng.permutation(DIRECTIONS).tolist()
    others = [Actor(_NOWHERE)] * int(rng.integers(1, 3))
    if kind == "motion":
        return [moves(d) for d in directions[: rng.integers(2, 4)]] + others
    if rng.random() < 0.4:
        others[0] = moves(directions[0])
    if kind == "repetition":
        counts = rng.permutation(len(NUMBERS))[:2] + 1
        return [Actor(_NOWHERE, shown=_flashes(rng, int(n))) for n in counts] + others
    if kind == "change":
        appears, vanishes = rng.integers(2, MOMENTS - 1, 2).tolist()
        return [since(appears, MOMENTS), since(0, vanishes), *others]
    if kind == "order":
        # Equally long, so that the number of frames does not tell which came first. None is there
        # from the beginning, when it would look like what stays.
        slack = MOMENTS - 1 - 3 * VISIT
        before = np.sort(rng.integers(0, slack + 1, 3)).tolist()
        starts = [1 + VISIT * turn + gap for turn, gap in enumerate(before)]
        return [since(s, s + VISIT) for s in starts] + others
    raise ValueError(f"unknown kind {kind!r}; choose from {', '.join(KINDS)}")


def _looks(rng: np.random.Generator, count: int) -> list[tuple[str, str]]:
    """`count` different (shape, color); half of the clips have few of either."""
    shapes, colors = list(SHAPES), list(COLOR_NAMES)
    if rng.random() < 0.5:
        shapes = rng.permutation(SHAPES)[:3].tolist()
        colors = rng.permutation(COLOR_NAMES)[:3].tolist()
    every = [(s, c) for s in shapes for c in colors]
    return [every[i] for i in rng.permutation(len(every))[:count]]


def _placed(rng: np.random.Generator, roles: Sequence[Actor]) -> tuple[Actor, ...] | None:
    """The actors with looks and places, or None where they do not find room."""
    taken: list[tuple[float, float, float, float]] = []
    found = []
    for actor, (shape, color) in zip(roles, _looks(rng, len(roles)), strict=True):
        size = log_uniform(rng, *SIZES)
        dx, dy = (step * actor.travel for step in STEP.get(actor.direction, (0, 0)))
        for _ in range(40):
            x, y = (
                float(rng.uniform(size / 2 + 1 - min(d, 0), SIDE - size / 2 - 1 - max(d, 0)))
                for d in (dx, dy)
            )
            reach = size / 2 + _GAP / 2
            box = (min(x, x + dx) - reach, min(y, y + dy) - reach,
                   max(x, x + dx) + reach, max(y, y + dy) + reach)  # fmt: skip
            if not any(
                box[0] < r and box[2] > left and box[1] < b and box[3] > top
                for left, top, r, b in taken
            ):
                taken.append(box)
                found.append(replace(actor, shape=Shape(shape, color, x, y, size)))
                break
        else:
            return None
    return tuple(found)


def sample_film(rng: np.random.Generator, kind: str | None = None) -> Film:
    """One clip's description; the kind is drawn if it is not given."""
    kind = kind or choice(rng, KINDS)
    background = Background(choice(rng, BACKGROUNDS), int(rng.integers(2**31)))
    while (actors := _placed(rng, _roles(rng, kind))) is None:
        continue
    order = rng.permutation(len(actors))
    return Film(kind, background, tuple(actors[i] for i in order))


def moments(film: Film) -> tuple[np.ndarray, np.ndarray]:
    """The frames that a model sees and their masks, as `drawing.draw_frames` returns them."""
    return frames_at(film, range(MOMENTS))


def frames_at(film: Film, times: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """The frames at some times, in moments; see `drawing.draw_frames`."""
    cast = [[actor.at(time) for actor in film.actors] for time in times]
    return draw_frames(film.background, cast, (SIDE, SIDE))
