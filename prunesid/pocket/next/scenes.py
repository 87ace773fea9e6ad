"""Images of up to 672 px whose content is too small for the base crop alone.

At full size things measure 20 to 36 px: what Pocket-LLaVA's tower reads well. The base crop shows
them at half of that or less, which keeps colors and loses shapes and characters.

An image enters in sub-crops of 336 px at its own scale, between bars of padding where it is
smaller than their grid. No thing lies across the seam of two sub-crops.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from prunesid.pocket.scenes import (
    FULL_SIZE,
    Arrows,
    Background,
    Code,
    Place,
    Scene,
    Shape,
    choice,
    log_uniform,
    sample_chart,
    sample_table,
)
from prunesid.pocket.vocabulary import (
    BACKGROUNDS,
    CHARACTERS,
    COLOR_NAMES,
    DIRECTIONS,
    SHAPES,
)

# (width, height): a square, and two wide and two tall formats, of which one each is padded.
SIZES = ((672, 672), (672, 448), (448, 672), (672, 336), (336, 672))
_SHARES = (0.4, 0.15, 0.15, 0.15, 0.15)
_KINDS = {"scene": 0.45, "code": 0.33, "chart": 0.09, "diagram": 0.13}
DETAIL = (20, 30)  # diameters of shapes, px
PRINT = (26, 36)  # heights of characters, px
_GAP = 3  # px between a thing and a seam or another thing

Box = tuple[float, float, float, float]  # left, top, right, bottom


@dataclass(frozen=True)
class Things:
    """Least and most of what an image holds: the number of shapes, and extents in px.

    apart  whether nothing may lie across a seam
    """

    number: tuple[int, int] = (4, 16)
    shape: tuple[float, float] = DETAIL
    character: tuple[float, float] = PRINT
    chart: tuple[float, float] = (90, 130)
    table: tuple[float, float] = (100, 140)
    arrow: tuple[float, float] = (24, 36)
    apart: bool = True


DETAILS = Things()


def seams(side: int) -> list[float]:
    """Where the sub-crops meet on an axis of an image of `side` px, at most 672."""
    return [] if side <= FULL_SIZE else [side / 2]


class _Room:
    """Free places of an image: inside it, across no seam, apart from what was placed before."""

    def __init__(self, rng: np.random.Generator, size: tuple[int, int], things: Things):
        self.rng, self.size, self.things = rng, size, things
        self.seams = [seams(side) if things.apart else [] for side in size]
        self.taken: list[Box] = []

    def _free(self, box: Box) -> bool:
        left, top, right, bottom = box
        across, down = self.seams
        cut = any(left - _GAP < at < right + _GAP for at in across) or any(
            top - _GAP < at < bottom + _GAP for at in down
        )
        return not cut and not any(
            left - _GAP < r and right + _GAP > x and top - _GAP < b and bottom + _GAP > y
            for x, y, r, b in self.taken
        )

    def place(self, width: float, height: float) -> tuple[float, float] | None:
        """The center of a free place for a thing, or None after 60 vain tries."""
        for _ in range(60):
            x = float(self.rng.uniform(width / 2 + 1, self.size[0] - width / 2 - 1))
            y = float(self.rng.uniform(height / 2 + 1, self.size[1] - height / 2 - 1))
            box = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
            if self._free(box):
                self.taken.append(box)
                return x, y
        return None

    def first(self, width: float, height: float) -> tuple[float, float]:
        """As `place`, for the first thing of an image, for which there is room."""
        while (at := self.place(width, height)) is None:
            continue
        return at


def _shapes(rng: np.random.Generator, room: _Room) -> tuple[Shape, ...]:
    wanted = round(log_uniform(rng, *room.things.number))
    # Few colors: a name's color alone, which the base crop shows, does not tell which thing it is.
    shapes = rng.permutation(SHAPES)[: rng.integers(2, len(SHAPES) + 1)].tolist()
    colors = rng.permutation(COLOR_NAMES)[: rng.integers(1, 5)].tolist()
    placed = []
    for _ in range(wanted):
        size = log_uniform(rng, *room.things.shape)
        if (at := room.place(size, size)) is not None:
            placed.append(Shape(choice(rng, shapes), choice(rng, colors), *at, size))
    return tuple(placed)


def _code(rng: np.random.Generator, room: _Room) -> Code:
    height = log_uniform(rng, *room.things.character)
    plate = Code(tuple(choice(rng, CHARACTERS) for _ in range(3)), 0, 0, height, False)
    x, y = room.first(plate.width, plate.plate_height)
    return replace(plate, x=x, y=y, dark_plate=bool(rng.integers(2)))


def _arrows(rng: np.random.Generator, room: _Room) -> Arrows:
    length = float(rng.uniform(*room.things.arrow))
    centers = [room.place(length, length) for _ in range(int(rng.integers(1, 4)))]
    direction, color = choice(rng, DIRECTIONS), choice(rng, COLOR_NAMES)
    return Arrows(direction, color, tuple(c for c in centers if c is not None), length)


def sample_scene(
    rng: np.random.Generator,
    kind: str | None = None,
    size: tuple[int, int] | None = None,
    things: Things = DETAILS,
) -> Scene:
    """One image's description; see `prunesid.pocket.scenes.sample_scene` for the kinds.

    size  (width, height) in pixels, by default drawn from SIZES
    """
    if size is None:
        size = SIZES[int(rng.choice(len(SIZES), p=_SHARES))]
    if kind is None:
        kind = str(rng.choice(list(_KINDS), p=list(_KINDS.values())))
    background = Background(choice(rng, BACKGROUNDS), int(rng.integers(2**31)))
    room = _Room(rng, size, things)

    def square(extents: tuple[float, float]) -> Place:
        def draw() -> tuple[float, float, float]:
            extent = float(rng.uniform(*extents))
            return *room.first(extent, extent), extent

        return draw

    if kind == "chart":
        return Scene(
            "chart", size, background, chart=sample_chart(rng, square(things.chart)), full=size
        )
    if kind == "diagram" and rng.random() < 0.7:
        return Scene(
            "diagram", size, background, table=sample_table(rng, square(things.table)), full=size
        )
    if kind == "diagram":
        return Scene("diagram", size, background, arrows=_arrows(rng, room), full=size)
    if kind not in _KINDS:
        raise ValueError(f"unknown kind {kind!r}; choose from {', '.join(_KINDS)}")
    code = _code(rng, room) if kind == "code" else None
    shapes = _shapes(rng, room)
    return Scene("scene", size, background, shapes=shapes, code=code, full=size)
