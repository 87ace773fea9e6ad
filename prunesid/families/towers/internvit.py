"""The InternViT tower (transformers' `InternVLVisionModel`), and pixel shuffle."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from prunesid.core.needs import Needs
from prunesid.core.record import VisionRecord
from prunesid.families.towers.clip import Names, read_clip

# Queries and keys as attention multiplies them: after their norms, which some towers have.
NAMES = Names("encoder.layer", "attention", "q_norm", "k_norm")
ATTENTION = ("cls_attention", "last_attention", "first_cls_attention", "last_cls_attention")


@torch.no_grad()
def read_internvit(
    tower: Any, pixels: Tensor, feature_block: int, needs: Needs, normed: bool
) -> VisionRecord:
    """As `read_clip`; `normed`: features and CLS after the tower's last layer norm, if any."""
    record = read_clip(tower, pixels, feature_block, needs, names=NAMES)
    if not normed or record.cls is None:
        return record
    return replace(
        record, features=tower.layernorm(record.features), cls=tower.layernorm(record.cls)
    )


def cell_order(side: int) -> Tensor:
    """(side * side,) int64: the patches of a square, one 2 x 2 cell after another.

    Cells, and the patches of a cell, come in raster order. ValueError for an odd side.
    """
    if side % 2:
        raise ValueError(f"{side} x {side} patches are not made of cells of 2 x 2")
    patches = torch.arange(side * side).view(side // 2, 2, side // 2, 2)
    return patches.transpose(1, 2).flatten()


def shuffled(patches: Tensor) -> Tensor:
    """(B, T, ..., D) patches of squares -> (B, T / 4, ..., 4 D): pixel shuffle.

    A token is the channels of the four patches of its cell one after another.
    """
    cells = patches[:, cell_order(round(patches.shape[1] ** 0.5)).to(patches.device)]
    return cells.unflatten(1, (-1, 4)).movedim(2, -2).flatten(-2)


def shuffle_record(record: VisionRecord) -> VisionRecord:
    """The record of tokens after pixel shuffle, from the fields of their four patches.

    features, keys, last_keys, hidden  the channels of the four one after another
    cls            four copies of CLS, which a cell of nothing but CLS would be
    cls_attention, last_attention, first_cls_attention, last_cls_attention  the sum over the four
    """

    order = cell_order(math.isqrt(record.num_tokens))

    def summed(attention: Tensor | None) -> Any:
        return None if attention is None else attention[..., order].unflatten(-1, (-1, 4)).sum(-1)

    def joined(patches: Tensor | None, axis: int = 1) -> Any:
        if patches is None:
            return None
        return shuffled(patches.transpose(1, axis)).transpose(1, axis)

    return replace(
        record,
        features=shuffled(record.features),
        cls=None if record.cls is None else record.cls.repeat(1, 4),
        keys=joined(record.keys, axis=2),
        last_keys=joined(record.last_keys),
        hidden={layer: shuffled(own) for layer, own in record.hidden.items()},
        grid=None if record.grid is None else (record.grid[0] // 2, record.grid[1] // 2),
        **{name: summed(getattr(record, name)) for name in ATTENTION},
    )


def tokens_of(patches: Tensor, index: Tensor, side: int) -> Tensor:
    """Patches (n, D) that were chosen one by one -> ceil(n / 4) tokens (N, 4 D).

    index  (n,) int64 the patch of each in a square of `side`; below 0 for none (merged, CLS)

    The four patches of a cell that is kept whole are the token of pixel shuffle. Other patches go
    cell by cell, four at a time; then come those of no patch. The last patch fills the last token.
    Tokens stand by the cell of their first patch, so that all patches give pixel shuffle.
    """
    place = torch.empty(side * side, dtype=torch.int64)
    place[cell_order(side)] = torch.arange(side * side)
    last = side * side
    found = index.cpu()
    at = torch.where(found < 0, last, place[found.clamp(min=0)])
    order = at.argsort(stable=True)
    cell = at[order] // 4
    kept = torch.bincount(cell, minlength=last // 4 + 1)
    whole = (kept[cell] == 4) & (cell < last // 4)
    split = order[~whole]
    if len(split) % 4:
        split = torch.cat([split, split[-1:].expand(-len(split) % 4)])
    groups = torch.cat([order[whole], split]).view(-1, 4)
    groups = groups[at[groups[:, 0]].argsort(stable=True)]
    return patches[groups.to(patches.device)].flatten(1)
