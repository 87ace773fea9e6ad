"""Scenes as Pocket-Qwen2-VL sees them: patches, merged tokens and M-RoPE's positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prunesid.pocket.drawing import draw
from prunesid.pocket.model import PATCH
from prunesid.pocket.qwen.model import MERGE
from prunesid.pocket.qwen.scenes import TOKEN
from prunesid.pocket.scenes import Scene
from prunesid.pocket.training.grounding import PLACES
from prunesid.pocket.training.labels import PatchTargets, patch_targets

Targets = dict[str, Tensor]
PER_IMAGE = ("style", "presence")  # the other targets have one for each patch


@dataclass(frozen=True)
class Batch:
    """B scenes of one size, which have V merged tokens of 4 patches each.

    pixels   (B * 4 V, channels) patches as the processor makes them
    grids    (B, 3)
    patches  the fields of `PatchTargets` of the patches, in the tower's order
    tokens   those of the merged tokens
    """

    pixels: Tensor
    grids: Tensor
    patches: Targets
    tokens: Targets

    @property
    def content(self) -> Tensor:
        """(B, V) bool: the token shows more than background."""
        return self.tokens["foreground"].amax(-1) > 0


def tower_order(rows: int, columns: int) -> Tensor:
    """(rows * columns,) raster number of the patch at each place of the tower's sequence."""
    blocks = (rows // MERGE, MERGE, columns // MERGE, MERGE)
    return torch.arange(rows * columns).view(blocks).transpose(1, 2).flatten()


def _stacked(found: Sequence[PatchTargets]) -> Targets:
    return {
        name: torch.from_numpy(np.stack([getattr(t, name) for t in found]))
        for name in PatchTargets.__dataclass_fields__
    }


def batch_of(scenes: Sequence[Scene], image_processor: Any) -> Batch:
    """Scenes of one size as training tensors."""
    drawn = [draw(scene) for scene in scenes]
    given = image_processor([picture for picture, _, _ in drawn], return_tensors="pt")
    patches, tokens = (
        _stacked(
            [
                patch_targets(scene, mask, regions, side)
                for scene, (_, mask, regions) in zip(scenes, drawn, strict=True)
            ]
        )
        for side in (PATCH, TOKEN)
    )
    _, rows, columns = given["image_grid_thw"][0].tolist()
    order = tower_order(rows, columns)
    patches = {k: v if k in PER_IMAGE else v[:, order] for k, v in patches.items()}
    return Batch(given["pixel_values"], given["image_grid_thw"], patches, tokens)


def cells(size: tuple[int, int]) -> Tensor:
    """(2, V) row and column of each merged token of an image of (width, height) in px."""
    columns, rows = (side // TOKEN for side in size)
    number = torch.arange(rows * columns)
    return torch.stack([number // columns, number % columns])


def rotary(size: tuple[int, int], start: int) -> tuple[Tensor, int]:
    """M-RoPE's positions (3, V) of an image that begins at `start`, and the first one after it."""
    where = cells(size)
    positions = start + torch.cat([torch.zeros_like(where[:1]), where])
    return positions, start + max(size) // TOKEN


def bins(size: tuple[int, int]) -> Tensor:
    """(V, 2) column and row of each merged token in PLACES bins of the image's sides."""
    columns, rows = (side // TOKEN for side in size)
    row, column = cells(size)
    return torch.stack([column * PLACES // columns, row * PLACES // rows], 1)
