"""Descriptions of pocket images, sampled from a seed; they hold no pixels.

`sample_scene(rng, size)` draws one of three kinds of image: a *scene* of colored shapes (with a
printed code in some), a *chart* (bars or a pie), a *diagram* (a table of shapes or a row of
arrows). All facts that a question may ask for are fields; `drawing.py` turns them into pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from prunesid.pocket.vocabulary import BACKGROUNDS, CHARACTERS, COLOR_NAMES, DIRECTIONS, SHAPES

PATCH = 14
FULL_SIZE = 336


@dataclass(frozen=True)
class Shape:
    """A colored shape with its center and diameter in pixels."""

    shape: str
    color: str
    x: float
    y: float
    size: float

    @property
    def name(self) -> str:
        return f"{self.color} {self.shape}"


@dataclass(frozen=True)
class Code:
    """A plate with printed characters; (x, y) is its center, `height` that of a character."""

    characters: tuple[str, ...]
    x: float
    y: float
    height: float
    dark_plate: bool

    @property
    def cell(self) -> float:
        return 0.95 * self.height

    @property
    def width(self) -> float:
        return self.cell * len(self.characters) + 0.4 * self.height

    @property
    def plate_height(self) -> float:
        return 1.3 * self.height


@dataclass(frozen=True)
class Chart:
    """Bars (`values` are heights) or a pie (`values` are shares), in a square box."""

    form: str
    colors: tuple[str, ...]
    values: tuple[float, ...]
    x: float
    y: float
    extent: float
    start_angle: float = 0.0


@dataclass(frozen=True)
class Table:
    """A 3 x 3 table; `cells[row][column]` is (shape, color) or None."""

    cells: tuple[tuple[tuple[str, str] | None, ...], ...]
    x: float
    y: float
    extent: float


@dataclass(frozen=True)
class Arrows:
    """A few arrows that all point one way."""

    direction: str
    color: str
    centers: tuple[tuple[float, float], ...]
    length: float


@dataclass(frozen=True)
class Background:
    style: str
    seed: int


@dataclass(frozen=True)
class Scene:
    """The content of one image; `kind` is scene, chart or diagram.

    `size` is the (width, height) in pixels. Training starts on windows smaller than the image of
    size `full`; `origin` is the (x, y) of the window's corner there. Absolute places refer to the
    full image.
    """

    kind: str
    size: tuple[int, int]
    background: Background
    shapes: tuple[Shape, ...] = ()
    code: Code | None = None
    chart: Chart | None = None
    table: Table | None = None
    arrows: Arrows | None = None
    origin: tuple[int, int] = (0, 0)
    full: tuple[int, int] = (FULL_SIZE, FULL_SIZE)

    def share(self, x: float, y: float) -> tuple[float, float]:
        """The place of a point of this image in the full one, as shares of width and height."""
        return (x + self.origin[0]) / self.full[0], (y + self.origin[1]) / self.full[1]


# (x, y, extent) of a square's center and side in pixels, drawn when it is called.
Place = Callable[[], tuple[float, float, float]]


def choice(rng: np.random.Generator, items):
    return items[int(rng.integers(len(items)))]


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(math.exp(rng.uniform(math.log(low), math.log(high))))


def _code(rng: np.random.Generator, size: int) -> Code:
    height = log_uniform(rng, 26, min(52, 0.27 * size))
    characters = tuple(choice(rng, CHARACTERS) for _ in range(3))
    code = Code(characters, 0, 0, height, bool(rng.integers(2)))
    x = rng.uniform(code.width / 2 + 2, size - code.width / 2 - 2)
    y = rng.uniform(code.plate_height / 2 + 2, size - code.plate_height / 2 - 2)
    return Code(characters, float(x), float(y), height, code.dark_plate)


def _blocked(x: float, y: float, radius: float, shapes: list[Shape], code: Code | None) -> bool:
    if code is not None:
        dx = abs(x - code.x) - code.width / 2 - radius
        dy = abs(y - code.y) - code.plate_height / 2 - radius
        if dx < 2 and dy < 2:
            return True
    return any(max(abs(x - o.x), abs(y - o.y)) < radius + o.size / 2 + 2 for o in shapes)


def _shapes(rng: np.random.Generator, size: int, code: Code | None) -> tuple[Shape, ...]:
    room = (size / 336) ** 2
    # A count that is uniform on a log scale gives sparse and crowded images alike, so that their
    # information scores differ.
    wanted = max(1, round(log_uniform(rng, 1, 13) * (room if room == 1 else room * 1.6)))
    smallest, largest = choice(rng, ((20, 44), (28, 72), (20, 112), (40, 112)))
    largest = min(largest, 0.45 * size)
    smallest = min(smallest, largest)
    # Half of the images use few shapes and colors. They give counts above one, and negatives that
    # share a color or a shape with something present.
    shapes, colors = SHAPES, COLOR_NAMES
    if rng.random() < 0.55:
        shapes = tuple(rng.permutation(SHAPES)[: rng.integers(1, 4)].tolist())
        colors = tuple(rng.permutation(COLOR_NAMES)[: rng.integers(1, 4)].tolist())
    placed: list[Shape] = []
    for diameter in sorted(log_uniform(rng, smallest, largest) for _ in range(wanted))[::-1]:
        for _ in range(30):
            x, y = rng.uniform(diameter / 2 + 1, size - diameter / 2 - 1, 2).tolist()
            if not _blocked(x, y, diameter / 2, placed, code):
                placed.append(Shape(choice(rng, shapes), choice(rng, colors), x, y, diameter))
                break
    return tuple(placed)


def _large(
    rng: np.random.Generator, size: int, least: float, most: float
) -> tuple[float, float, float]:
    """(x, y, extent) of a square anywhere, with a side of `least` to `most` of the image's."""
    extent = float(rng.uniform(least, most) * size)
    x, y = rng.uniform(extent / 2 + 2, size - extent / 2 - 2, 2).tolist()
    return x, y, extent


def sample_chart(rng: np.random.Generator, place: Place) -> Chart:
    """Bars or a pie of three to five parts."""
    count = int(rng.integers(3, 6))
    colors = tuple(rng.permutation(COLOR_NAMES)[:count].tolist())
    x, y, extent = place()
    if rng.random() < 0.5:
        # Heights are distinct steps of eight, so that tallest and shortest never tie.
        values = (rng.permutation(8)[:count] + 1) / 8
        return Chart("bars", colors, tuple(values.tolist()), x, y, extent)
    weights = rng.permutation(np.array([1.0, 1.8, 2.9, 4.3, 6.0])[:count]) + rng.uniform(0, 0.3)
    shares = tuple((weights / weights.sum()).tolist())
    return Chart("pie", colors, shares, x, y, extent, float(rng.uniform(0, 360)))


def sample_table(rng: np.random.Generator, place: Place) -> Table:
    """Four to nine filled cells."""
    filled = rng.permutation(9)[: rng.integers(4, 10)].tolist()
    flat: list[tuple[str, str] | None] = [None] * 9
    for cell in filled:
        flat[cell] = (choice(rng, SHAPES), choice(rng, COLOR_NAMES))
    return Table(tuple(tuple(flat[3 * r : 3 * r + 3]) for r in range(3)), *place())


def _arrows(rng: np.random.Generator, size: int) -> Arrows:
    direction = choice(rng, DIRECTIONS)
    count = int(rng.integers(2, 5))
    length = float(rng.uniform(0.5, 0.85) * size / count)
    pitch = size / count
    lane = float(rng.uniform(0.2, 0.8) * size)
    along = [(i + 0.5) * pitch for i in range(count)]
    level = direction in ("left", "right")
    centers = tuple((a, lane) if level else (lane, a) for a in along)
    return Arrows(direction, choice(rng, COLOR_NAMES), centers, length)


def sample_scene(rng: np.random.Generator, size: int = FULL_SIZE, kind: str | None = None) -> Scene:
    """One image's description.

    size  side in pixels, a multiple of the patch (14); below 336 it gives a window at a random
          place of the patch grid
    kind  `scene`, `code` (a scene that holds a printed code), `chart` or `diagram`; by default
          drawn in the proportion 41 : 19 : 20 : 20
    """
    if size % PATCH:
        raise ValueError(f"size must be a multiple of {PATCH}, got {size}")
    x, y = (rng.integers(0, (FULL_SIZE - size) // PATCH + 1, 2) * PATCH).tolist()
    origin = (x, y)
    window = (size, size)
    background = Background(choice(rng, BACKGROUNDS), int(rng.integers(2**31)))
    drawn = rng.random()

    def square(least: float, most: float) -> Place:
        return lambda: _large(rng, size, least, most)

    if kind is None:
        kind = ("scene", "code", "chart", "diagram")[int(np.searchsorted([0.41, 0.6, 0.8], drawn))]
    if kind == "chart":
        return Scene(
            "chart", window, background, chart=sample_chart(rng, square(0.6, 0.92)), origin=origin
        )
    if kind == "diagram":
        if rng.random() < 0.6:
            return Scene(
                "diagram",
                window,
                background,
                table=sample_table(rng, square(0.6, 0.95)),
                origin=origin,
            )
        return Scene("diagram", window, background, arrows=_arrows(rng, size), origin=origin)
    if kind not in ("scene", "code"):
        raise ValueError(f"unknown kind {kind!r}; choose from scene, code, chart, diagram")
    code = _code(rng, size) if kind == "code" else None
    return Scene(
        "scene", window, background, shapes=_shapes(rng, size, code), code=code, origin=origin
    )
