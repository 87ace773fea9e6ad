"""Smaller images and frames for the towers of Qwen's families, from the patches of larger ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def shrink(
    patches: Tensor, grids: Sequence[Sequence[int]], targets: Sequence[Sequence[int]], vision: Any
) -> Tensor:
    """Patches (P, channels * time * height * width) of media -> those of the same media, smaller.

    grids, targets  (M) frames, rows and columns of patches of each medium, before and after
    vision          configuration of the tower

    Resized bicubic, antialiased. A medium whose grid stays is what it was.
    """
    sizes = [frames * rows * columns for frames, rows, columns in grids]
    return torch.cat(
        [
            own if list(grid) == list(target) else _shrunk(own, grid, target, vision)
            for own, grid, target in zip(patches.split(sizes), grids, targets, strict=True)
        ]
    )


def _shrunk(patches: Tensor, grid: Sequence[int], target: Sequence[int], vision: Any) -> Tensor:
    merge, patch, length = vision.spatial_merge_size, vision.patch_size, vision.temporal_patch_size
    frames, rows, columns = grid
    # As the image processor lays patches out: those of a merged token are neighbors.
    apart = patches.float().view(
        frames, rows // merge, columns // merge, merge, merge, -1, length, patch, patch
    )
    pixels = apart.permute(0, 6, 5, 1, 3, 7, 2, 4, 8)
    pixels = pixels.reshape(frames * length, -1, rows * patch, columns * patch)
    _, rows, columns = target
    size = (rows * patch, columns * patch)
    small = F.interpolate(pixels, size, mode="bicubic", antialias=True)
    cells = small.view(
        frames, length, -1, rows // merge, merge, patch, columns // merge, merge, patch
    )
    together = cells.permute(0, 3, 6, 4, 7, 2, 1, 5, 8)
    return together.reshape(frames * rows * columns, patches.shape[1]).to(patches.dtype)
