"""What enters LLaVA-NeXT's language model under each method as its authors have it, in loops.

A token is (crop, patch): of crop 0, the base crop, and of sub-crops 1, 2, ... in raster order. CLS
and merged tokens have the patch None and a third item; a newline embedding is ("newline", row).
"""

from __future__ import annotations

import torch
from transformers.models.llava_next.modeling_llava_next import unpad_image


def cell_of(token, grid, side):
    """Row and column in the map of a patch of a sub-crop."""
    crop, patch = token
    row, column = divmod(crop - 1, grid[1])
    return row * side + patch // side, column * side + patch % side


def of_map(grid, side):
    """The patches of the map, row by row."""
    patches = [(1 + crop, patch) for crop in range(grid[0] * grid[1]) for patch in range(side**2)]
    return sorted(patches, key=lambda token: cell_of(token, grid, side))


def shown_rows(grid, side, size):
    """The map as the model unpads it: {row: its patches}."""
    patches = of_map(grid, side)
    numbers = torch.arange(len(patches)).view(1, grid[0] * side, grid[1] * side)
    left = unpad_image(numbers, list(size))[0]
    # Where the model leaves no columns, rows count all the same.
    top = (grid[0] * side - left.shape[0]) // 2
    return {top + n: [patches[i] for i in row] for n, row in enumerate(left.tolist())}


def packed(grid, side, size, *, newlines):
    """The base crop and the unpadded map, as the model packs them."""
    found = [(0, patch) for patch in range(side**2)]
    for row, own in shown_rows(grid, side, size).items():
        found += own + ([("newline", row)] if newlines else [])
    return found


def in_map_order(sent, grid, side):
    """What each crop sends, a list of tokens by crop -> VisionZip's and PruneSID's order.

    The base crop as it is; patches of sub-crops by the map; their CLS tokens; their merged ones.
    """
    rest = [token for own in sent[1:] for token in own]
    patches = [token for token in rest if len(token) == 2]
    cls = [token for token in rest if len(token) == 3 and token[2] == "cls"]
    merged = [token for token in rest if len(token) == 3 and token[2] != "cls"]
    return sent[0] + sorted(patches, key=lambda t: cell_of(t, grid, side)) + cls + merged


def without_padding(tokens, grid, side, size):
    """Those that are not patches of the padding."""
    shown = set(packed(grid, side, size, newlines=False))
    return [token for token in tokens if token in shown]
