"""Patch info mining (Mini-Gemini, arXiv 2403.18814, section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PatchInfoMining(nn.Module):
    """Each low-resolution patch attends to the high-resolution cells that it covers.

    `width` is that of the patches, `cell_width` that of the cells.
    """

    def __init__(self, width: int, cell_width: int) -> None:
        super().__init__()
        self.query = _projection(width, width)
        self.key = _projection(cell_width, width)
        self.value = _projection(cell_width, width)

    def forward(self, patches: Tensor, cells: Tensor) -> Tensor:
        """Patches (B, N, D) of a square grid, cells (B, C, H, W) -> mined features (B, N, D)."""
        grid = round(patches.shape[1] ** 0.5)
        covered = windows(cells, grid)
        key = self.key(covered) / patches.shape[-1] ** 0.5
        scores = self.query(patches)[:, :, None] @ key.transpose(-1, -2)
        weights = scores.nan_to_num().softmax(-1, dtype=torch.float32).to(patches.dtype)
        return (weights @ self.value(covered)).squeeze(2)


def windows(cells: Tensor, grid: int) -> Tensor:
    """Cells (B, C, H, W) -> (B, grid * grid, cells of a window, C), both in raster order."""
    height, width = cells.shape[-2:]
    if height % grid or width % grid:
        raise ValueError(f"{height} x {width} cells do not make {grid} x {grid} windows")
    parts = cells.unflatten(3, (grid, -1)).unflatten(2, (grid, -1))
    return parts.permute(0, 2, 4, 3, 5, 1).flatten(3, 4).flatten(1, 2)


def _projection(width: int, target: int) -> nn.Sequential:
    return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, target))
