"""Which patches of an image or clip are kept, in the image's own pixels, and a picture of them.

Processors scale, pad and cut images before a model sees them. A `View` undoes that: it says where a
crop lies in the image, whatever the image's size. The picture needs Pillow alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

from prunesid.core.record import GRID, MEMBERS
from prunesid.images.medium import CENTER, JOINED, MAP, PADDED, SUB_CROPS, VIDEO, WHOLE, Medium

if TYPE_CHECKING:
    from PIL.Image import Image

    from prunesid.core.record import Kept
    from prunesid.images.records import ImageRecords

TILED = "tiled"
# How far patches that are not kept fade to white, and how much of their group's color they carry.
FADE, TINT = 0.72, 0.22
INK, MERGED = "#1f2430", "#e65c00"
# 24 hues of one lightness (HUSL, saturation 95, lightness 58). Neighbors look alike, so groups go
# round the circle in steps.
HUES = (
    "#fa426e",
    "#f3531f",
    "#cf721e",
    "#b97e1e",
    "#a7861e",
    "#978c1e",
    "#85911e",
    "#6e971e",
    "#409d1e",
    "#1f9e56",
    "#209c73",
    "#209b84",
    "#219a91",
    "#22989e",
    "#2297ab",
    "#2395bb",
    "#2591d5",
    "#5485f8",
    "#9573f8",
    "#c05bf8",
    "#e828f6",
    "#f326d8",
    "#f92abb",
    "#fa389a",
)
STRIDE = 7
GAP, ACROSS = 8, 4

Rectangle = tuple[int, int, int, int]


@dataclass(frozen=True)
class View:
    """The part of an image that a crop shows.

    kind   CENTER: the middle square of the image. WHOLE: the image, stretched to the crop. PADDED:
           the image in the middle of a larger square. MAP: a part of the image, which is scaled
           into `tiles` rows and columns of squares and padded evenly. TILED: one square of the
           image, which is stretched to the arrangement of squares with the nearest aspect ratio
    tiles  rows and columns of squares, or (1, number of squares) for TILED
    part   top, left, bottom and right of the part in a MAP, in squares; (number of the square in
           raster order,) for TILED
    """

    kind: str
    tiles: tuple[int, int] = (1, 1)
    part: tuple[float, ...] = ()

    def region(self, size: tuple[int, int]) -> tuple[float, float, float, float]:
        """Left, top, right and bottom in an image of `size`, its width and height.

        They lie outside the image where the crop shows padding.
        """
        width, height = size
        if self.kind == CENTER:
            side = min(size)
            left, top = (width - side) // 2, (height - side) // 2
            return left, top, left + side, top + side
        if self.kind == PADDED:
            side = max(size)
            left, top = -((side - width) // 2), -((side - height) // 2)
            return left, top, left + side, top + side
        if self.kind == MAP:
            rows, columns = self.tiles
            square = max(width / columns, height / rows)
            before, above = (width - columns * square) / 2, (height - rows * square) / 2
            first, start, last, end = self.part
            return (
                before + start * square, above + first * square,
                before + end * square, above + last * square,
            )  # fmt: skip
        if self.kind == TILED:
            rows, columns = arrangement(self.tiles[1], width / height)
            row, column = divmod(int(self.part[0]), columns)
            across, down = width / columns, height / rows
            return column * across, row * down, (column + 1) * across, (row + 1) * down
        return 0, 0, width, height


@dataclass(frozen=True)
class KeptCrop:
    """The patches that are kept of a crop or frame.

    view     what the crop shows of its image
    grid     rows and columns of its patches
    index    the kept patches, in raster order
    group    for every patch its group, or the number of the merged token that it goes into, -1 for
             none; None for a method with neither
    centers  the patches that merged tokens stand for, in raster order
    panel    number, from 0, of the picture of the medium in which the crop is drawn
    members  the patches of each merged token, if merged tokens share patches. The patch that the
             token stands for comes first; without centers they are all patches of a cell
    """

    view: View
    grid: tuple[int, int]
    index: tuple[int, ...]
    group: tuple[int, ...] | None = None
    centers: tuple[int, ...] = ()
    panel: int = 0
    members: tuple[tuple[int, ...], ...] = ()

    @property
    def cells(self) -> tuple[tuple[int, ...], ...]:
        """The patches of each cell that is averaged."""
        return () if self.centers else self.members

    def box(self, patch: int, size: tuple[int, int]) -> Rectangle:
        """Left, top, right and bottom of a patch in an image of `size`, its width and height.

        In whole pixels, so that adjacent patches neither overlap nor leave a gap. A patch in the
        padding has an empty box.
        """
        left, top, right, bottom = self.view.region(size)
        (rows, columns), (row, column) = self.grid, divmod(patch, self.grid[1])

        def edge(start: float, end: float, at: int, of: int, limit: int) -> int:
            return min(max(round(start + (end - start) * at / of), 0), limit)

        return (
            edge(left, right, column, columns, size[0]),
            edge(top, bottom, row, rows, size[1]),
            edge(left, right, column + 1, columns, size[0]),
            edge(top, bottom, row + 1, rows, size[1]),
        )


@dataclass(frozen=True)
class KeptMedium:
    """What is kept of an image or clip.

    kind    "image" or "video"
    tokens  how many visual tokens are kept of it, newline embeddings not counted
    crops   its crops, or the frames of a clip as the model has them
    """

    kind: str
    tokens: int
    crops: tuple[KeptCrop, ...]

    @property
    def panels(self) -> int:
        """Number of pictures: one for the base crop and one for sub-crops, or one per frame."""
        return 1 + max(crop.panel for crop in self.crops)

    def boxes(self, size: tuple[int, int], panel: int = 0) -> list[Rectangle]:
        """The kept patches (left, top, right, bottom) in the pixels of an image of `size`.

        `size` is width and height. ValueError if there is no such panel.
        """
        if not 0 <= panel < self.panels:
            raise ValueError(f"panel must be one of 0 to {self.panels - 1}, not {panel}")
        own = [
            crop.box(patch, size)
            for crop in self.crops
            if crop.panel == panel
            for patch in (*crop.index, *crop.centers)
        ]
        return [box for box in own if box[0] < box[2] and box[1] < box[3]]


def arrangement(squares: int, aspect: float) -> tuple[int, int]:
    """Rows and columns of so many squares, nearest to an aspect ratio (width / height)."""
    found = [(squares // n, n) for n in range(1, squares + 1) if squares % n == 0]
    return min(found, key=lambda grid: abs(aspect - grid[1] / grid[0]))


def kept_media(kept: Kept, records: ImageRecords) -> list[KeptMedium]:
    """What is kept of each medium, in the order of `records`; `kept` has the same R rows."""
    media = [medium for own in records.inputs.values() for medium in own]
    return [_kept_medium(kept, medium, records.grids) for medium in media]


def _kept_medium(kept: Kept, medium: Medium, grids: Sequence[tuple[int, int]]) -> KeptMedium:
    crops, tokens = [], 0
    for row, (view, panel) in zip(medium.rows, _views(medium), strict=True):
        grid, count = grids[row], int(kept.count[row])
        index = sorted(i for i in kept.index[row, :count].tolist() if i >= 0)
        tokens += sum(i >= -1 for i in kept.index[row, :count].tolist())
        names = ("group", "merged_into", "selected", MEMBERS)
        facts = {name: kept.info[name][row] for name in names if name in kept.info}
        patches = grid[0] * grid[1]
        if GRID in kept.info:
            # All tokens of a smaller image.
            rows, columns = kept.info[GRID][row].tolist()
            grid, index, facts = (rows, columns), list(range(rows * columns)), {}
        selected = facts["selected"].nonzero().flatten().tolist() if "selected" in facts else []
        groups = facts.get("group", facts.get("merged_into"))
        group = None if groups is None else tuple(groups.tolist()[:patches])
        listed = facts[MEMBERS].tolist() if MEMBERS in facts else []
        members = tuple(tuple(i for i in own if i >= 0) for own in listed if own[0] >= 0)
        crops.append(KeptCrop(view, grid, tuple(index), group, tuple(selected), panel, members))
    return KeptMedium(medium.kind, tokens // medium.layout.get(JOINED, 1), tuple(crops))


def _views(medium: Medium) -> list[tuple[View, int]]:
    """The view and the panel of each crop."""
    count, layout = len(medium.rows), medium.layout
    first = View(layout["view"])
    if medium.kind == VIDEO:
        return [(first, panel) for panel in range(count)]
    if SUB_CROPS in layout:
        rows, columns = medium.sub_crops
        corners = [(row, column) for row in range(rows) for column in range(columns)]
        parts = [(row, column, row + 1, column + 1) for row, column in corners]
        return [(first, 0), *((View(MAP, (rows, columns), part), 1) for part in parts)]
    if count > 1 and MAP in layout:
        return [(first, 0), (View(MAP, tuple(layout["tiles"]), tuple(layout["part"])), 1)]
    if count > 1:
        # Tiles, then a thumbnail.
        tiles = [(View(TILED, (1, count - 1), (number,)), 1) for number in range(count - 1)]
        return [*tiles, (View(WHOLE), 0)]
    return [(first, 0)]


def draw(image: Image | Sequence[Any], kept: KeptMedium, *, frames: bool = True) -> Image:
    """A picture of an image with its kept patches; the others are faded.

    image   the image as it was before any preprocessing, or all frames of a clip (images or arrays
            (H, W, 3) uint8)
    kept    what is kept of it
    frames  whether kept patches are framed: in the color of their group, dark without groups,
            orange for patches that merged tokens stand for and for cells that are averaged

    With one panel, the result has the size of the image. Otherwise it shows one picture for the
    base crop and one for the sub-crops, or one per frame of a clip, side by side. ValueError if an
    image is given for a clip, or frames for an image.
    """
    from PIL import Image as Images

    single = hasattr(image, "convert")
    shown: list[Any] = [image] if single else list(image)  # type: ignore[arg-type]
    if single == (kept.kind == VIDEO):
        raise ValueError(
            f"what is kept is that of {'a clip' if kept.kind == VIDEO else 'an image'}; draw it on "
            f"{'all frames, in order' if kept.kind == VIDEO else 'one image'}"
        )
    # A temporal patch of several frames is shown by its first.
    step = -(-len(shown) // kept.panels)
    pictures = []
    for panel in range(kept.panels):
        own = shown[panel * step] if kept.kind == VIDEO else shown[0]
        own = own if hasattr(own, "convert") else Images.fromarray(own)
        crops = [crop for crop in kept.crops if crop.panel == panel]
        pictures.append(_drawn(own.convert("RGB"), crops, frames))
    return pictures[0] if len(pictures) == 1 else in_rows(pictures)


def in_rows(pictures: Sequence[Image], across: int = ACROSS) -> Image:
    """Pictures of one size in rows of at most `across`, with a white gap between them."""
    from PIL import Image as Images

    width, height = pictures[0].size
    columns = min(across, len(pictures))
    rows = -(-len(pictures) // columns)
    size = columns * (width + GAP) - GAP, rows * (height + GAP) - GAP
    whole = Images.new("RGB", size, "white")
    for number, picture in enumerate(pictures):
        row, column = divmod(number, columns)
        whole.paste(picture, (column * (width + GAP), row * (height + GAP)))
    return whole


def group_color(group: int) -> tuple[int, int, int]:
    """RGB of a group, in two shades of each hue, so that adjacent numbers differ; gray below 0."""
    if group < 0:
        return 200, 200, 200
    hue = HUES[group * STRIDE % len(HUES)]
    shade = 1.0 if group % (2 * len(HUES)) < len(HUES) else 0.65
    red, green, blue = (round(shade * int(hue[at : at + 2], 16)) for at in (1, 3, 5))
    return red, green, blue


def _drawn(image: Image, crops: Sequence[KeptCrop], frames: bool) -> Image:
    from PIL import Image as Images
    from PIL import ImageDraw

    size = image.size
    faded = Images.blend(image.convert("L").convert("RGB"), Images.new("RGB", size, "white"), FADE)
    if any(crop.group is not None or crop.members for crop in crops):
        tints = faded.copy()
        pen = ImageDraw.Draw(tints)
        for crop in crops:
            colors = {i: group_color(group) for i, group in enumerate(crop.group or ())}
            for patch, color in (colors | dict.fromkeys(chain(*crop.members), MERGED)).items():
                _fill(pen, crop.box(patch, size), fill=color)
        faded = Images.blend(faded, tints, TINT)
    mask = Images.new("L", size)
    pen = ImageDraw.Draw(mask)
    for crop in crops:
        for patch in (*crop.index, *crop.centers, *chain(*crop.cells)):
            _fill(pen, crop.box(patch, size), fill=255)
    found = Images.composite(image, faded, mask)
    if frames:
        pen = ImageDraw.Draw(found)
        for crop in crops:
            marked: list[tuple[tuple[int, ...], Any]] = [((i,), MERGED) for i in crop.centers]
            marked += [(own, MERGED) for own in crop.cells]
            for patch in crop.index:
                group = crop.group[patch] if crop.group else -1
                marked.append(((patch,), INK if group < 0 else group_color(group)))
            for patches, color in marked:
                boxes = [crop.box(patch, size) for patch in patches]
                left, top, right, bottom = boxes[0]
                thick = max(1, round(min(right - left, bottom - top) / 12))
                _fill(pen, _around(boxes), outline=color, width=thick)
    return found


def _around(boxes: Sequence[Rectangle]) -> Rectangle:
    lefts, tops, rights, bottoms = zip(*boxes, strict=True)
    return min(lefts), min(tops), max(rights), max(bottoms)


def _fill(pen: Any, box: Rectangle, **how: Any) -> None:
    """A rectangle of pixels left..right-1 and top..bottom-1; none if it is empty."""
    left, top, right, bottom = box
    if left < right and top < bottom:
        pen.rectangle((left, top, right - 1, bottom - 1), **how)
