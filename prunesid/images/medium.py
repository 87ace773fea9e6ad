"""An image or a clip of an input: its crops among the rows of records, and its layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from prunesid.core.rectangle import Box

IMAGE, VIDEO = "image", "video"
# The view in the first crop of a medium: the middle square of the image, the whole image, or the
# whole image in the middle of a larger square.
CENTER, WHOLE, PADDED = "center", "whole", "padded"
# Key of a layout: when the CLS token goes before the patches of a crop. WHEN_WHOLE: only if all of
# the medium is kept. ALWAYS: also otherwise, in one place of the crop's budget.
CLS = "cls"
WHEN_WHOLE, ALWAYS = "whole", "always"
# Key of a layout: the medium is an image that comes as a base crop (its first row) and sub-crops of
# the same grid, in raster order. "grid" holds the rows and columns of sub-crops. "parts" holds, for
# each row, the box of the patches that show the image, as `Box.values`; the others are padding.
SUB_CROPS = "sub_crops"
# Key of a layout: rows and columns of the map, if it is in one piece, the second row of an image.
# Then "tiles" holds the rows and columns of its sub-crops. "part" holds the box that the map shows
# of them, in units of sub-crops.
MAP = "map"
# Key of a layout: how many patches of a crop enter together, as one token; budgets count such
# tokens. Without the key: 1.
JOINED = "joined"


@dataclass(frozen=True)
class Medium:
    """An image or a clip.

    kind    "image" or "video"
    rows    numbers of its crops or frames among all R, in their order
    layout  facts that its model family needs to put the crops together, as JSON values; "view" is
            CENTER, WHOLE or PADDED
    """

    kind: str
    rows: tuple[int, ...]
    layout: Mapping[str, Any]

    @property
    def sub_crops(self) -> tuple[int, int]:
        """Rows and columns of sub-crops, for an image in `SUB_CROPS`."""
        rows, columns = self.layout[SUB_CROPS]["grid"]
        return rows, columns

    def parts(self, grid: tuple[int, int], unpad: bool = True) -> list[Box]:
        """The box of patches that show the image, for each row; a row has a `grid` of patches.

        All patches if `unpad` is false, and for media that are not in `SUB_CROPS`.
        """
        if not unpad or SUB_CROPS not in self.layout:
            return [Box(0, 0, *grid)] * len(self.rows)
        return [Box(*values) for values in self.layout[SUB_CROPS]["parts"]]


def grouped(names: Sequence[str] | None, media: Sequence[Medium]) -> dict[str, tuple[Medium, ...]]:
    """{input: its media}; without names every medium is an input, called by its number.

    ValueError if the media of an input are not adjacent, or the lengths differ.
    """
    names = names or [str(number) for number in range(len(media))]
    found: dict[str, list[Medium]] = {}
    last = None
    for name, medium in zip(names, media, strict=True):
        if name in found and name != last:
            raise ValueError(f"the media of the input {name!r} are not next to each other")
        found.setdefault(name, []).append(medium)
        last = name
    return {name: tuple(own) for name, own in found.items()}


def repeated(
    inputs: Mapping[str, Sequence[Medium]], owners: Mapping[str, str]
) -> tuple[dict[str, tuple[Medium, ...]], list[int]]:
    """{name: media} of new inputs that repeat others' media, and the row that each row repeats.

    owners  {name: the input whose media it repeats}
    """
    found, sources = {}, list[int]()
    for name, owner in owners.items():
        media = []
        for medium in inputs[owner]:
            first = len(sources)
            sources += medium.rows
            media.append(replace(medium, rows=tuple(range(first, len(sources)))))
        found[name] = tuple(media)
    return found, sources


def row_names(inputs: Mapping[str, Sequence[Medium]]) -> dict[int, str]:
    """{row: the name for its random choices}: the input's, with a number if it has several rows."""
    found = {}
    for name, media in inputs.items():
        rows = [row for medium in media for row in medium.rows]
        for number, row in enumerate(rows):
            found[row] = name if len(rows) == 1 else f"{name}/{number}"
    return found
