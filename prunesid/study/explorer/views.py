"""Where the patches of an input lie in its pictures: one view per crop, map of crops or frame."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from prunesid.images.media import Clip
from prunesid.images.medium import SUB_CROPS, VIDEO, WHOLE, Medium
from prunesid.study.stages.patches import PATCH, as_seen

# Pixels of the longer side of a picture, and of a frame of a clip.
LONGEST, FRAME = 672, 224
Grid = tuple[int, int]


@dataclass(frozen=True)
class View:
    """A grid of patches over one of the input's pictures.

    picture  its number
    shown    top, left, bottom and right of the part of the grid that the picture fills
    tiles    (number of the first patch among those of all crops in a row, top, left, rows, columns)
             of each crop in the grid
    """

    title: str
    picture: int
    grid: Grid
    shown: tuple[int, int, int, int]
    tiles: tuple[tuple[int, int, int, int, int], ...]


def views_of(media: Sequence[Medium], grids: Sequence[Grid]) -> tuple[View, ...]:
    """The views of an input; `grids` are those of its crops, in their order.

    Of an image in crops that are not `SUB_CROPS` the first is shown.
    """
    found: list[View] = []
    first = [sum(rows * columns for rows, columns in grids[:row]) for row in range(len(grids))]
    start = pictures = 0
    for medium in media:
        count = len(medium.rows)
        frames = count if medium.kind == VIDEO else 1
        for place in range(frames):
            title = f"frame {place + 1}" if frames > 1 else ""
            row = start + place
            found.append(_one(title, pictures + place, first[row], grids[row]))
        if SUB_CROPS in medium.layout and count > 1:
            found[-1] = _one("whole image", pictures, first[start], grids[start])
            found.append(_map(medium, pictures, first[start + 1 : start + count], grids[start]))
        start, pictures = start + count, pictures + frames
    return tuple(found)


def pictures_of(medium: Medium, seen: Image.Image | Clip, grid: Grid) -> list[Image.Image]:
    """The pictures of a medium as its views show them; `grid` is its first crop's."""
    rows, columns = (PATCH * side for side in grid)
    view = medium.layout["view"]
    if isinstance(seen, Clip):
        count, total = len(medium.rows), len(seen.frames)
        frames = (Image.fromarray(seen.frames[i * total // count]) for i in range(count))
        return [Image.fromarray(as_seen(frame, (FRAME, FRAME), view)) for frame in frames]
    if view == WHOLE:
        whole = seen.convert("RGB")
        whole.thumbnail((LONGEST, LONGEST))
        return [whole]
    return [Image.fromarray(as_seen(seen, (min(rows, LONGEST), min(columns, LONGEST)), view))]


def as_text(views: Sequence[View]) -> str:
    """The views as JSON, by which equal ones are stored once."""
    return json.dumps(
        [[v.title, v.picture, v.grid, v.shown, v.tiles] for v in views], separators=(",", ":")
    )


def _one(title: str, picture: int, first: int, grid: Grid) -> View:
    return View(title, picture, grid, (0, 0, *grid), ((first, 0, 0, *grid),))


def _map(medium: Medium, picture: int, first: Sequence[int], grid: Grid) -> View:
    """The sub-crops put together; the picture fills what the layout says is shown."""
    rows, columns = grid
    down, across = medium.sub_crops
    tiles = tuple(
        (patch, n // across * rows, n % across * columns, rows, columns)
        for n, patch in enumerate(first)
    )
    top, left, bottom, right = medium.layout.get("shown", (0, 0, down * rows, across * columns))
    whole = (down * rows, across * columns)
    return View("in crops", picture, whole, (top, left, bottom, right), tiles)
