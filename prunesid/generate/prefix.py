"""Many questions after one cached prompt prefix, without copying the cache.

The questions of an image lie end to end in one row of the batch. Each token has an owner, the slot
of its question. It sees the shared prefix and earlier tokens of the same owner. Its position
continues the prefix as if its question stood there alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

SHARED = -1
NOBODY = -2


@dataclass(frozen=True)
class Packed:
    """New tokens of B images, S per row, padded on the right with owner NOBODY."""

    ids: torch.Tensor
    """(B, S) int64."""
    owners: torch.Tensor
    """(B, S) int64, slot of the question that a token belongs to."""
    positions: torch.Tensor
    """(B, S) int64."""
    last: list[list[int]]
    """Column of the last token of each slot, per image."""


def pack(texts: Sequence[Sequence[Sequence[int]]], starts: Sequence[Sequence[int]]) -> Packed:
    """Lay `texts[image][slot]` (token ids, perhaps none) end to end, one image per row.

    `starts[image][slot]` is the position of a slot's first token. All tensors are on the CPU.
    """
    width = max(1, max(sum(map(len, row)) for row in texts))
    ids = torch.zeros(len(texts), width, dtype=torch.int64)
    owners = torch.full_like(ids, NOBODY)
    positions = torch.zeros_like(ids)
    last: list[list[int]] = []
    for image, row in enumerate(texts):
        column, ends = 0, []
        for slot, tokens in enumerate(row):
            block = slice(column, column + len(tokens))
            ids[image, block] = torch.tensor(tokens, dtype=torch.int64)
            owners[image, block] = slot
            start = starts[image][slot]
            positions[image, block] = torch.arange(start, start + len(tokens))
            column += len(tokens)
            ends.append(column - 1)
        last.append(ends)
    return Packed(ids, owners, positions, last)


def prefix_owners(lengths: Sequence[int]) -> torch.Tensor:
    """(B, P) owners of prefixes padded on the right to the longest, P = max(lengths)."""
    columns = torch.arange(max(lengths))
    return torch.where(columns < torch.tensor(lengths)[:, None], SHARED, NOBODY)


def attention_mask(new: torch.Tensor, cached: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Additive mask (B, 1, S, P + S) for S new tokens after P cached ones, from their owners.

    Padding sees earlier padding and itself: an empty row would give NaN.
    """
    keys = torch.cat([cached, new], dim=1)
    seen = (keys[:, None] == SHARED) | (keys[:, None] == new[:, :, None])
    size = new.shape[1]
    seen[:, :, -size:] &= torch.ones(size, size, dtype=torch.bool, device=new.device).tril()
    mask = torch.zeros(seen.shape, dtype=dtype, device=new.device)
    return mask.masked_fill_(~seen, torch.finfo(dtype).min)[:, None]
