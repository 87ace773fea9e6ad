"""Rendering of a scene to pixels, with a mask of the region that each pixel belongs to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from prunesid.pocket.scenes import Arrows, Background, Chart, Code, Scene, Shape, Table
from prunesid.pocket.vocabulary import COLORS, ORDINALS, PLACES, RANKS


@dataclass(frozen=True)
class Region:
    """One thing in the picture.

    kind       a shape, `character`, `bar`, `slice` or `arrow_<direction>`
    center, extent  in pixels
    magnitude  a bar's height or a slice's share, in [0, 1]
    role       its distinction among its neighbors: a character's ordinal, the rank of a chart's
               largest or smallest part, the place of a table's cell
    """

    kind: str
    color: str | None
    center: tuple[float, float]
    extent: float
    character: str | None = None
    magnitude: float = 0.0
    role: str | None = None


_ABSENT = Region("background", None, (0, 0), 0)


class _Canvas:
    """Draws into the picture and into the mask of region numbers (1-based) at once."""

    def __init__(self, picture: Image.Image, seed: int):
        self.picture = picture
        self.mask = Image.new("L", picture.size, 0)
        self.pen = ImageDraw.Draw(picture)
        self.stencil = ImageDraw.Draw(self.mask)
        self.regions: list[Region] = []
        self._jitter = np.random.default_rng(seed)

    def ink(self, color: str) -> tuple[int, int, int]:
        jitter = self._jitter.integers(-16, 17, 3)
        red, green, blue = (int(v) for v in np.clip(np.array(COLORS[color]) + jitter, 0, 255))
        return red, green, blue

    def skip(self) -> None:
        """Leave out a thing that is not there, without changing the number and tint of others."""
        self.regions.append(_ABSENT)
        self._jitter.integers(-16, 17, 3)

    def add(self, region: Region) -> int:
        self.regions.append(region)
        return len(self.regions)


def _polygon(shape: str, x: float, y: float, r: float) -> list[tuple[float, float]]:
    def around(angles, radii):
        return [
            (x + q * math.cos(math.radians(a - 90)), y + q * math.sin(math.radians(a - 90)))
            for a, q in zip(angles, radii, strict=True)
        ]

    if shape == "square":
        s = 0.88 * r
        return [(x - s, y - s), (x + s, y - s), (x + s, y + s), (x - s, y + s)]
    if shape == "triangle":
        return [(x, y - r), (x + r, y + 0.85 * r), (x - r, y + 0.85 * r)]
    if shape == "diamond":
        return [(x, y - r), (x + 0.72 * r, y), (x, y + r), (x - 0.72 * r, y)]
    if shape == "star":
        return around(range(0, 360, 36), [r, 0.42 * r] * 5)
    if shape == "cross":
        w = 0.32 * r
        corners = [(-w, -r), (w, -r), (w, -w), (r, -w), (r, w), (w, w),
                   (w, r), (-w, r), (-w, w), (-r, w), (-r, -w), (-w, -w)]  # fmt: skip
        return [(x + a, y + b) for a, b in corners]
    raise ValueError(f"no polygon for {shape!r}")


def _draw_shape(canvas: _Canvas, item: Shape, role: str | None = None) -> None:
    number = canvas.add(Region(item.shape, item.color, (item.x, item.y), item.size, role=role))
    ink, r = canvas.ink(item.color), item.size / 2
    box = (item.x - r, item.y - r, item.x + r, item.y + r)
    if item.shape == "circle":
        canvas.pen.ellipse(box, fill=ink)
        canvas.stencil.ellipse(box, fill=number)
    elif item.shape == "ring":
        canvas.pen.ellipse(box, outline=ink, width=max(3, round(0.24 * item.size)))
        # The hole belongs to the ring, since the ring's center lies there.
        canvas.stencil.ellipse(box, fill=number)
    else:
        corners = _polygon(item.shape, item.x, item.y, r)
        canvas.pen.polygon(corners, fill=ink)
        canvas.stencil.polygon(corners, fill=number)


@lru_cache(maxsize=64)
def _font(height: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(height)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise RuntimeError("Pillow was built without FreeType; the printed codes need it")
    return font


def _draw_code(canvas: _Canvas, code: Code) -> None:
    left, top = code.x - code.width / 2, code.y - code.plate_height / 2
    plate, ink = (
        ((28, 28, 32), (238, 238, 238)) if code.dark_plate else ((240, 240, 236), (20,) * 3)
    )
    canvas.pen.rectangle(
        (left, top, left + code.width, top + code.plate_height), fill=plate, outline=ink
    )
    for i, (role, character) in enumerate(zip(ORDINALS, code.characters, strict=True)):
        x = left + 0.2 * code.height + (i + 0.5) * code.cell
        region = Region("character", None, (x, code.y), code.height, character, role=role)
        number = canvas.add(region)
        canvas.pen.text((x, code.y), character, fill=ink, font=_font(round(1.2 * code.height)),
                        anchor="mm", stroke_width=1, stroke_fill=ink)  # fmt: skip
        half = code.cell / 2
        canvas.stencil.rectangle((x - half, top, x + half, top + code.plate_height), fill=number)


def _draw_chart(canvas: _Canvas, chart: Chart) -> None:
    left, top = chart.x - chart.extent / 2, chart.y - chart.extent / 2
    least, most = RANKS[chart.form]
    role = {min(chart.values): least, max(chart.values): most}
    if chart.form == "bars":
        canvas.pen.rectangle(
            (left, top, left + chart.extent, top + chart.extent), fill=(250, 250, 250)
        )
        pitch = chart.extent / len(chart.values)
        floor = top + 0.97 * chart.extent
        for i, (color, value) in enumerate(zip(chart.colors, chart.values, strict=True)):
            x = left + (i + 0.5) * pitch
            height = 0.92 * chart.extent * value
            center = (x, floor - height / 2)
            number = canvas.add(Region("bar", color, center, pitch, None, value, role.get(value)))
            box = (x - 0.32 * pitch, floor - height, x + 0.32 * pitch, floor)
            canvas.pen.rectangle(box, fill=canvas.ink(color))
            canvas.stencil.rectangle(box, fill=number)
        canvas.pen.line((left, floor, left + chart.extent, floor), fill=(60, 60, 60), width=2)
        return
    box = (left, top, left + chart.extent, top + chart.extent)
    angle = chart.start_angle
    for color, share in zip(chart.colors, chart.values, strict=True):
        middle = math.radians(angle + 180 * share)
        reach = 0.3 * chart.extent
        center = (chart.x + reach * math.cos(middle), chart.y + reach * math.sin(middle))
        region = Region("slice", color, center, chart.extent / 2, None, share, role.get(share))
        number = canvas.add(region)
        canvas.pen.pieslice(box, angle, angle + 360 * share, fill=canvas.ink(color))
        canvas.stencil.pieslice(box, angle, angle + 360 * share, fill=number)
        angle += 360 * share


def _draw_table(canvas: _Canvas, table: Table) -> None:
    left, top = table.x - table.extent / 2, table.y - table.extent / 2
    pitch = table.extent / 3
    canvas.pen.rectangle((left, top, left + table.extent, top + table.extent), fill=(246, 246, 242))
    for i in range(4):
        at = i * pitch
        canvas.pen.line((left + at, top, left + at, top + table.extent), fill=(40,) * 3, width=2)
        canvas.pen.line((left, top + at, left + table.extent, top + at), fill=(40,) * 3, width=2)
    for row, cells in enumerate(table.cells):
        for column, cell in enumerate(cells):
            if cell is not None:
                x, y = left + (column + 0.5) * pitch, top + (row + 0.5) * pitch
                shape = Shape(cell[0], cell[1], x, y, 0.68 * pitch)
                _draw_shape(canvas, shape, PLACES[row][column])


def _draw_arrows(canvas: _Canvas, arrows: Arrows) -> None:
    dx, dy = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}[arrows.direction]
    half, head, shaft = arrows.length / 2, 0.4 * arrows.length, 0.1 * arrows.length
    outline = [(-half, -shaft), (half - head, -shaft), (half - head, -head * 0.7), (half, 0),
               (half - head, head * 0.7), (half - head, shaft), (-half, shaft)]  # fmt: skip
    for x, y in arrows.centers:
        kind = f"arrow_{arrows.direction}"
        number = canvas.add(Region(kind, arrows.color, (x, y), arrows.length))
        corners = [(x + a * dx - b * dy, y + a * dy + b * dx) for a, b in outline]
        canvas.pen.polygon(corners, fill=canvas.ink(arrows.color))
        canvas.stencil.polygon(corners, fill=number)


def _backdrop(background: Background, size: tuple[int, int]) -> Image.Image:
    width, height = size
    rng = np.random.default_rng(background.seed)
    tint = rng.uniform(-8, 8, 3)
    base = rng.uniform(90, 190)
    if background.style == "gradient":
        angle, span = rng.uniform(0, 2 * math.pi), rng.uniform(60, 110)
        across, down = (np.linspace(-0.5, 0.5, side) for side in size)
        ramp = across[None, :] * math.cos(angle) + down[:, None] * math.sin(angle)
        gray: np.ndarray = base + span * ramp
    elif background.style == "noise":
        gray = base + rng.integers(-45, 46, (height, width))
    elif background.style == "stripes":
        stripe, turn = rng.uniform(9, 22), rng.integers(3)
        rows, columns = np.mgrid[0:height, 0:width]
        along = (rows, columns, rows + columns)[turn]
        gray = base + 24 * np.where((along // stripe) % 2 == 0, 1, -1)
    else:
        gray = np.full((height, width), base)
    pixels = np.clip(gray[..., None] + tint, 0, 255).astype(np.uint8)
    picture = Image.fromarray(pixels)
    if background.style == "blobs":
        pen = ImageDraw.Draw(picture)
        for _ in range(max(8, width * height // 5000)):
            x, y = rng.uniform(0, size)
            a, b = rng.uniform(10, 38, 2)
            value = np.clip(base + rng.uniform(-42, 42) + tint, 0, 255).astype(int)
            pen.ellipse((x - a, y - b, x + a, y + b), fill=tuple(int(v) for v in value))
    return picture


def draw(scene: Scene) -> tuple[Image.Image, np.ndarray, list[Region]]:
    """Render a scene.

    Returns the RGB picture, the mask (height, width) uint8 of 1-based region numbers (0 is
    background), and the regions.
    """
    canvas = _Canvas(_backdrop(scene.background, scene.size), scene.background.seed + 1)
    for item in scene.shapes:
        _draw_shape(canvas, item)
    if scene.code is not None:
        _draw_code(canvas, scene.code)
    if scene.chart is not None:
        _draw_chart(canvas, scene.chart)
    if scene.table is not None:
        _draw_table(canvas, scene.table)
    if scene.arrows is not None:
        _draw_arrows(canvas, scene.arrows)
    return canvas.picture, np.asarray(canvas.mask), canvas.regions


def draw_frames(
    background: Background, frames: Sequence[Sequence[Shape | None]], size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Pictures (F, height, width, 3) uint8 of the same shapes at F times; None is not there.

    A shape keeps its tint. The second array (F, height, width) uint8 has the 1-based number of the
    shape that each pixel belongs to, 0 for background.
    """
    backdrop = _backdrop(background, size)
    pictures, masks = [], []
    for shapes in frames:
        canvas = _Canvas(backdrop.copy(), background.seed + 1)
        for item in shapes:
            if item is None:
                canvas.skip()
            else:
                _draw_shape(canvas, item)
        pictures.append(np.asarray(canvas.picture))
        masks.append(np.asarray(canvas.mask))
    return np.stack(pictures), np.stack(masks)
