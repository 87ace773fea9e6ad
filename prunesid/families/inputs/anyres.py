"""Images at any resolution, as LLaVA-NeXT and LLaVA-OneVision see them.

The base crop is all of the image, stretched to the tower's square. For the rest the image is scaled
into the best of the checkpoint's resolutions, padded evenly, and cut into sub-crops. Their patches
side by side are the high-resolution map. The model drops the rows or columns of the map that it
takes for padding and puts a newline embedding after each row that is left.

How resolutions are chosen and what counts as padding is transformers' own code, roundings included.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.models.llava_next.modeling_llava_next import (
    get_anyres_image_grid_shape,
    unpad_image,
)

from prunesid.core.rectangle import Box
from prunesid.families.adapter import Crop


def check_resolutions(config: Any, image_processor: Any) -> None:
    """ValueError unless the processor cuts images as the model expects them, into whole crops."""
    own = [list(pair) for pair in config.image_grid_pinpoints]
    theirs = [list(pair) for pair in image_processor.image_grid_pinpoints]
    if own != theirs:
        raise ValueError(f"the model has image_grid_pinpoints {own}, its processor {theirs}")
    side = config.vision_config.image_size
    odd = [pair for pair in own if pair[0] % side or pair[1] % side]
    if odd:
        raise ValueError(f"image_grid_pinpoints {odd} are no multiples of the crop's {side} pixels")


def most_crops(config: Any) -> int:
    """The crops of an image at the largest of a checkpoint's resolutions, base crop included."""
    side = config.vision_config.image_size
    return 1 + max(
        height // side * (width // side) for height, width in config.image_grid_pinpoints
    )


def crop_grid(size: Sequence[int], config: Any) -> tuple[int, int]:
    """Rows and columns of the sub-crops of an image of `size`, its height and width in pixels."""
    return get_anyres_image_grid_shape(
        list(size), config.image_grid_pinpoints, config.vision_config.image_size
    )


def crop_boxes(grid: tuple[int, int], side: int) -> list[Box]:
    """Boxes of the sub-crops of side x side patches in the high-resolution map, in raster order."""
    rows, columns = grid
    return [
        Box(0, 0, side, side).moved(row * side, column * side)
        for row in range(rows)
        for column in range(columns)
    ]


def shown_box(size: Sequence[int], grid: tuple[int, int], side: int) -> Box:
    """The part of the map that the model takes for the image; it may be empty.

    size  height and width of the image in pixels
    grid  rows and columns of the sub-crops, of side x side patches each
    """
    rows, columns = grid[0] * side, grid[1] * side
    numbers = torch.arange(rows * columns).view(1, rows, columns)
    left = unpad_image(numbers, list(size))[0]
    height, width = left.shape
    # The padding is the same on both sides, also where nothing is left between them.
    top, start = (rows - height) // 2, (columns - width) // 2
    return Box(top, start, top + height, start + width)


def is_whole(crops: Sequence[Crop], sizes: Sequence[int]) -> bool:
    """Whether all patches of all crops are there, `sizes` of them, in raster order."""
    return all(
        len(crop.index) == size and torch.equal(crop.index.cpu(), torch.arange(size))
        for crop, size in zip(crops, sizes, strict=True)
    )


def map_cells(crops: Sequence[Crop], boxes: Sequence[Box]) -> Tensor:
    """(n, 2) row and column in the map of every token of its crops; -1 for tokens of no patch.

    boxes  where each crop lies in the map
    """
    parts = [torch.zeros(0, 2, dtype=torch.int64)]
    for crop, box in zip(crops, boxes, strict=True):
        index, columns = crop.index.cpu(), box.grid[1]
        cells = torch.stack([box.top + index // columns, box.left + index % columns], dim=1)
        parts.append(cells.masked_fill((index < 0)[:, None], -1))
    return torch.cat(parts)


def in_rows(
    tokens: Tensor, cells: Tensor, newline: Tensor, rows: Sequence[int] | None = None
) -> Tensor:
    """Tokens (n, E) of the map in raster order, with the embedding `newline` (E,) after its rows.

    cells  (n, 2) from `map_cells`; tokens of no patch come last, in their order
    rows   the rows that get a newline; None: those that hold a token
    """
    row, column = cells.unbind(1)
    ends = row[row >= 0].unique() if rows is None else torch.tensor(rows, dtype=torch.int64)
    width = int(column.max()) + 1 if len(column) else 0
    place = torch.cat([row, ends]) * (width + 1) + torch.cat(
        [column, ends.new_full(ends.shape, width)]
    )
    place[: len(row)].masked_fill_(row < 0, torch.iinfo(place.dtype).max)
    order = place.argsort(stable=True).to(tokens.device)
    return torch.cat([tokens, newline.to(tokens).expand(len(ends), -1)])[order]


def with_newlines(tokens: Tensor, rows: Tensor, newline: Tensor) -> Tensor:
    """Tokens (n, E) and the embedding `newline` (E,) after the last of each row of the map.

    rows  (n,) int64 the row of each, which do not fall; below 0 for tokens that are of none
    """
    last = torch.ones_like(rows, dtype=torch.bool)
    last[:-1] = rows[1:] != rows[:-1]
    number = torch.arange(len(rows)).repeat_interleave(1 + (last & (rows >= 0)).long())
    found = tokens[number.to(tokens.device)]
    found[1:][(number[1:] == number[:-1]).to(tokens.device)] = newline.to(tokens)
    return found
