"""The tower of six blocks learns to see frames as Pocket-LLaVA's of twelve does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForImageTextToText

from prunesid.pocket import WEIGHTS
from prunesid.pocket.drawing import draw
from prunesid.pocket.scenes import sample_scene
from prunesid.pocket.training.batches import to_pixels
from prunesid.pocket.training.loop import run_stage
from prunesid.pocket.training.schedule import Phase
from prunesid.pocket.training.tower import tower_forward
from prunesid.pocket.video.clips import MOMENTS, SIDE, frames_at, sample_film
from prunesid.pocket.video.model import FRAME_GRID, PATCHES, window

SHOWN = 4.0  # weight of a patch that shows something, relative to background


def teacher(start: Path = WEIGHTS) -> Any:
    """The frozen tower that is imitated."""
    model = AutoModelForImageTextToText.from_pretrained(
        start, dtype=torch.float32, trust_remote_code=False, use_safetensors=True
    )
    return model.model.vision_tower.requires_grad_(False)


def patches_shown(masks: np.ndarray) -> Tensor:
    """(F, PATCHES) bool from masks (F, SIDE, SIDE): whether a patch shows more than background."""
    tiles = masks.reshape(len(masks), FRAME_GRID, -1, FRAME_GRID, SIDE // FRAME_GRID)
    return torch.from_numpy(tiles.any((2, 4))).flatten(1)


def batch_of(seed: int, step: int, images: int) -> tuple[Tensor, Tensor]:
    """Pixels (B, 3, SIDE, SIDE) of frames and still scenes by halves, and `patches_shown`."""
    rng = np.random.default_rng([seed, 0, step])
    pictures, masks = [], []
    for turn in range(images):
        if turn % 2:
            frames, mask = frames_at(sample_film(rng), [int(rng.integers(MOMENTS))])
            pictures.append(frames[0])
            masks.append(mask[0])
        else:
            picture, mask, _ = draw(sample_scene(rng, SIDE))
            pictures.append(np.asarray(picture))
            masks.append(mask)
    return to_pixels(np.stack(pictures)), patches_shown(np.stack(masks))


def imitation_loss(found: list[Tensor], wanted: list[Tensor], shown: Tensor) -> Tensor:
    """Mean squared error in the last two blocks' outputs, relative to their variance."""
    weight = 1 + (SHOWN - 1) * shown.float()
    weight = torch.cat([torch.full_like(weight[:, :1], SHOWN**2), weight], 1)[..., None]
    total = torch.zeros(())
    for own, target, share in zip(found[-2:], wanted[-2:], (1.0, 0.3), strict=True):
        error = (own - target).square() / target.var((0, 1))
        total = total + share * (error * weight).mean() / weight.mean()
    return total


def train_tower(tower: Any, phases: list[Phase], folder: Path, seed: int) -> None:
    """Train `tower` in place, resuming from `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    target = teacher()
    tower.requires_grad_(True)
    matrices = [p for p in tower.encoder.layers.parameters() if p.ndim == 2]
    own = torch.arange(1 + PATCHES)

    def learn(step: int, phase: Phase) -> float:
        pixels, shown = batch_of(seed, step, phase.batch)
        with torch.no_grad():
            wanted = tower_forward(target, pixels, window(len(pixels)))
        found = tower_forward(tower, pixels, own.expand(len(pixels), -1))
        loss = imitation_loss(found, wanted, shown)
        loss.backward()
        return loss.item()

    run_stage(folder / "tower.safetensors", tower, matrices, phases, learn, clip=2.0)
