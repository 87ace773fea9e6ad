"""Images at any resolution, as LLaVA-NeXT and LLaVA-OneVision see them.

The base crop is all of the image, stretched to the tower's square. For the rest the image is scaled
into the best of the checkpoint's resolutions, padded evenly, and cut into sub-crops. Their patches
side by side are the high-resolution map. The model drops the rows or columns of the map that it
takes for padding and puts a newline embedding behind each row that is left.

How resolutions are chosen and what counts as padding is transformers' own code, roundings included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers.models.llava_next.modeling_llava_next import (
    get_anyres_image_grid_shape,
    unpad_image,
)

from prunesid.box import Box
from prunesid.models.adapter import Crop
from prunesid.record import VisionRecord

# DROP: no newlines. ROWS: one behind each row of the map that holds a token.
DROP, ROWS = "drop", "rows"
NEWLINES = (DROP, ROWS)


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
    """The crops of an image at the largest of a checkpoint's resolutions, the base crop included."""
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
    """Where the sub-crops of side x side patches lie in the high-resolution map, in raster order."""
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


def cut(record: VisionRecord, box: Box) -> VisionRecord:
    """The record of the patches in a box of its grid; ValueError where it has no grid."""
    if record.grid is None:
        raise ValueError("a record without a grid cannot be cut")
    if box.grid == record.grid:
        return record
    numbers = torch.arange(record.num_tokens, device=record.features.device).view(record.grid)
    patches = numbers[box.top : box.bottom, box.left : box.right].flatten()

    def pick(tensor: Tensor | None, dim: int = 1) -> Any:
        return None if tensor is None else tensor.index_select(dim, patches)

    return replace(
        record,
        features=pick(record.features),
        cls_attention=pick(record.cls_attention, 2),
        keys=pick(record.keys, 2),
        projected=pick(record.projected),
        joint=pick(record.joint),
        relevance=pick(record.relevance),
        last_attention=pick(record.last_attention),
        last_keys=pick(record.last_keys),
        first_cls_attention=pick(record.first_cls_attention),
        last_cls_attention=pick(record.last_cls_attention),
        hidden={block: pick(tensor) for block, tensor in record.hidden.items()},
        grid=box.grid,
    )


def cut_all(
    record: VisionRecord, parts: Sequence[tuple[int, Box]]
) -> tuple[tuple[VisionRecord, ...], tuple[tuple[int, ...], ...]]:
    """Groups and members, as `Records` has them, of parts of crops: (row of `record`, box)."""
    same: dict[Box, list[int]] = {}
    for number, (_, box) in enumerate(parts):
        same.setdefault(box, []).append(number)
    grids: dict[tuple[int, int], list[Box]] = {}
    for box in same:
        grids.setdefault(box.grid, []).append(box)
    groups, members = [], []
    for boxes in grids.values():
        groups.append(VisionRecord.cat([
            cut(record.rows([parts[number][0] for number in same[box]]), box) for box in boxes
        ]))  # fmt: skip
        members.append(tuple(number for box in boxes for number in same[box]))
    return tuple(groups), tuple(members)


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
    """Tokens (n, E) of the map in raster order, with the embedding `newline` (E,) behind its rows.

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
