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

    def together(self, tokens: Tensor, holder: Tensor, cells: Tensor) -> Tensor:
        """Tokens (B, N, D) that hold the patches of a square grid -> mined features (B, N, D).

        A token attends to all cells that any of its patches covers, as one. Ours; where each token
        is one patch, it is `forward`.

        holder  (B, T) int64 which token holds each patch
        cells   (B, C, H, W); one that several patches share is the patch's that holds its center
        """
        wide = torch.promote_types(tokens.dtype, torch.float32)
        grid = round(holder.shape[1] ** 0.5)
        owner = holder[:, patch_of_cells(cells.shape[-2], cells.shape[-1], grid).to(holder.device)]
        flat = cells.flatten(2).transpose(1, 2)
        across = owner[:, :, None].expand(-1, -1, tokens.shape[2])
        key = self.key(flat) / tokens.shape[-1] ** 0.5
        query = self.query(tokens).gather(1, across)
        scores = (query * key).sum(2, dtype=wide).nan_to_num()
        highest = scores.new_full(tokens.shape[:2], -torch.inf)
        highest = highest.scatter_reduce(1, owner, scores, "amax")
        weights = (scores - highest.gather(1, owner)).exp()
        total = torch.zeros_like(highest).scatter_add(1, owner, weights)
        weights = weights / total.gather(1, owner)
        mined = scores.new_zeros(tokens.shape)
        mined = mined.scatter_add(1, across, weights[:, :, None] * self.value(flat))
        return mined.to(tokens.dtype)


def patch_of_cells(height: int, width: int, grid: int) -> Tensor:
    """(height * width) int64: the one of grid x grid patches that holds the center of each cell."""
    down, right = ((2 * torch.arange(side) + 1) * grid // (2 * side) for side in (height, width))
    return (down[:, None] * grid + right).flatten()


def windows(cells: Tensor, grid: int) -> Tensor:
    """Cells (B, C, H, W) -> (B, grid * grid, cells of a window, C), both in raster order."""
    height, width = cells.shape[-2:]
    if height % grid or width % grid:
        raise ValueError(f"{height} x {width} cells do not make {grid} x {grid} windows")
    parts = cells.unflatten(3, (grid, -1)).unflatten(2, (grid, -1))
    return parts.permute(0, 2, 4, 3, 5, 1).flatten(3, 4).flatten(1, 2)


def _projection(width: int, target: int) -> nn.Sequential:
    return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, target))
