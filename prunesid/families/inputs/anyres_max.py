"""Fewer tokens of LLaVA-OneVision's patches: of large images, and of the frames of clips.

With `vision_aspect_ratio` "anyres_max_9" an unpadded high-resolution map of clearly more patches
than 9 crops have is scaled down bilinearly to about as many; so is every frame of a clip, to half
its sides (27 x 27 patches to 14 x 14). A token is then a mean of up to four patches.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.nn.functional import interpolate

from prunesid.core.record import VisionRecord
from prunesid.core.rectangle import Box

# Maps are shrunk where their sides are by more than this too long.
SLACK = 1.1


def most_crops_kept(config: Any) -> int:
    """The 9 of "anyres_max_9"; ValueError if the config names another kind of packing."""
    found = re.fullmatch(r"anyres_max_([1-9]\d*)", config.vision_aspect_ratio)
    if found is None:
        raise ValueError(
            f"vision_aspect_ratio must be anyres_max_N, not {config.vision_aspect_ratio!r}"
        )
    return int(found[1])


def shrunk(grid: tuple[int, int], side: int, most: int) -> tuple[int, int]:
    """Rows and columns of an unpadded map of `grid` that may have `most` crops of side x side."""
    rows, columns = grid
    ratio = math.sqrt(rows * columns / (most * side**2))
    return (int(rows // ratio), int(columns // ratio)) if ratio > SLACK else grid


def pack_map(tokens: Tensor, grid: tuple[int, int], shown: Box, target: tuple[int, int]) -> Tensor:
    """Tokens (C, T, X) of the sub-crops, `grid` of them -> (1, rows * columns, X) of the map.

    shown   the part of the map that shows the image
    target  rows and columns that it is to have
    """
    side = math.isqrt(tokens.shape[1])
    spread = tokens.unflatten(1, (side, side)).unflatten(0, grid).permute(4, 0, 2, 1, 3)
    whole = spread.contiguous().flatten(1, 2).flatten(2, 3)
    part = whole[:, shown.top : shown.bottom, shown.left : shown.right]
    if shown.grid != target:
        part = interpolate(part[None], target, mode="bilinear")[0]
    return part.flatten(1, 2).transpose(0, 1)[None]


def pack_record(
    record: VisionRecord, grid: tuple[int, int], shown: Box, target: tuple[int, int]
) -> VisionRecord:
    """The record of sub-crops -> that of their map, one row; every field is packed alike."""
    return _packed(record, lambda tokens: pack_map(tokens, grid, shown, target), target)


def pooled_side(side: int) -> int:
    """Rows, and columns, of a pooled frame of side x side patches."""
    return math.ceil(side / 2)


def pool_frames(tokens: Tensor) -> Tensor:
    """Tokens (F, T, X) of square frames -> (F, T', X) of half the rows and columns, rounded up."""
    side = math.isqrt(tokens.shape[1])
    spread = tokens.unflatten(1, (side, side)).permute(0, 3, 1, 2).contiguous()
    small = interpolate(spread, [pooled_side(side)] * 2, mode="bilinear")
    return small.flatten(2).transpose(1, 2)


def pool_record(record: VisionRecord) -> VisionRecord:
    """The record of frames, pooled: every field is pooled as features are."""
    side = pooled_side(math.isqrt(record.num_tokens))
    return _packed(record, pool_frames, (side, side))


def _packed(
    record: VisionRecord, pack: Callable[[Tensor], Tensor], grid: tuple[int, int]
) -> VisionRecord:
    return VisionRecord(
        features=pack(record.features),
        cls_attention=_by_token(record.cls_attention, pack),
        keys=_by_token(record.keys, pack),
        last_cls_attention=(
            None
            if record.last_cls_attention is None
            else pack(record.last_cls_attention[..., None])[..., 0]
        ),
        hidden={block: pack(tensor) for block, tensor in record.hidden.items()},
        grid=grid,
    )


def _by_token(tensor: Tensor | None, pack: Callable[[Tensor], Tensor]) -> Tensor | None:
    """Packs (C, H, T) or (C, H, T, d)."""
    if tensor is None:
        return None
    tokens = tensor.transpose(1, 2)
    return pack(tokens.flatten(2)).unflatten(2, tokens.shape[2:]).transpose(1, 2)
