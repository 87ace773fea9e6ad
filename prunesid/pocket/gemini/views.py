"""Pocket-LLaVA-NeXT's images as Pocket-Mini-Gemini sees them: squared, and at half their size.

A scene and its mask at 336 px have what the training of Pocket-LLaVA asks of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prunesid.pocket.drawing import draw
from prunesid.pocket.gemini.model import SIDE
from prunesid.pocket.model import GRID, IMAGE_SIZE
from prunesid.pocket.scenes import Scene
from prunesid.pocket.training.labels import PatchTargets, patch_targets

PATCHES = GRID * GRID


def _padding(scene: Scene) -> tuple[int, int]:
    """Pixels left of and above an image of at most 672 px in its square."""
    width, height = scene.size
    return (SIDE - width) // 2, (SIDE - height) // 2


def halved(scene: Scene) -> Scene:
    """The square of 336 px; the image in its middle is what absolute places refer to.

    It has the shapes, and nothing else that a scene may hold.
    """
    left, top = _padding(scene)
    width, height = scene.size
    shapes = tuple(
        replace(s, x=(s.x + left) / 2, y=(s.y + top) / 2, size=s.size / 2) for s in scene.shapes
    )
    return Scene(
        scene.kind, (IMAGE_SIZE, IMAGE_SIZE), scene.background, shapes,
        origin=(-left // 2, -top // 2), full=(width // 2, height // 2),
    )  # fmt: skip


def batch_of(scenes: Sequence[Scene], processor: Any) -> dict[str, Tensor]:
    """B scenes of at most 672 px.

    pixel_values, pixel_values_aux  as `processor` makes them
    content  (B, 576) bool: the patch shows more than background
    own      (B, 576, 2) each patch's place as a share of the square

    The other entries are the fields of `PatchTargets`, each (B, ...); patches of padding have
    weight 0.
    """
    pictures: list[Any] = []
    targets: list[PatchTargets] = []
    for scene in scenes:
        picture, mask, regions = draw(scene)
        left, top = _padding(scene)
        mask = np.pad(mask, ((top, top), (left, left)))[::2, ::2]
        regions = [
            replace(
                r,
                center=((r.center[0] + left) / 2, (r.center[1] + top) / 2),
                extent=r.extent / 2,
            )
            for r in regions
        ]
        found = patch_targets(halved(scene), mask, regions)
        inside = ((found.center >= 0) & (found.center <= 1)).all(1)
        center = found.center.clip(0, 1)
        targets.append(replace(found, center=center, weight=found.weight * inside))
        pictures.append(picture)
    stacked = {
        name: torch.from_numpy(np.stack([getattr(t, name) for t in targets]))
        for name in PatchTargets.__dataclass_fields__
    }
    cell = torch.arange(PATCHES)
    own = torch.stack([cell % GRID, cell // GRID], -1)
    # Foreground is given at 7 x 7 places of each patch.
    content = stacked["foreground"].amax(-1) > 0
    return (
        stacked
        | processor.images(pictures)
        | {
            "content": content,
            "own": ((own + 0.5) / GRID).expand(len(scenes), -1, -1),
        }
    )
