"""Scenes as training tensors: pixels, window positions and the targets of every patch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from prunesid.pocket.drawing import draw
from prunesid.pocket.model import GRID, MEAN, PATCH, STD
from prunesid.pocket.scenes import Scene
from prunesid.pocket.training.labels import PatchTargets, patch_targets
from prunesid.pocket.training.tower import window_positions


def to_pixels(pictures: np.ndarray) -> Tensor:
    """(B, S, S, 3) uint8 -> (B, 3, S, S) float32, normalized as the processor does."""
    scaled = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
    return (scaled - MEAN) / STD


def scene_batch(scenes: Sequence[Scene]) -> dict[str, Tensor]:
    """B scenes of one size, stacked.

    pixels     (B, 3, S, S)
    positions  (B, 1 + P) rows of the position table
    own        (B, P, 2) each patch's place as a share of the full image

    The other entries are the fields of `PatchTargets`, each (B, ...).
    """
    pictures: list[np.ndarray] = []
    targets: list[PatchTargets] = []
    for scene in scenes:
        picture, mask, regions = draw(scene)
        pictures.append(np.asarray(picture))
        targets.append(patch_targets(scene, mask, regions))
    corner = torch.tensor([s.origin for s in scenes]) // PATCH
    positions = window_positions(corner[:, 1], corner[:, 0], scenes[0].size[0] // PATCH)
    cell = positions[:, 1:] - 1
    stacked = {
        name: torch.from_numpy(np.stack([getattr(t, name) for t in targets]))
        for name in PatchTargets.__dataclass_fields__
    }
    return stacked | {
        "pixels": to_pixels(np.stack(pictures)),
        "positions": positions,
        "own": (torch.stack([cell % GRID, cell // GRID], -1) + 0.5) / GRID,
    }
