"""Pocket-LLaVA-NeXT's images as Pocket-Mini-Gemini sees them: squared, and at half their size.

At that size a scene and its mask have what the training of Pocket-LLaVA asks of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from prunesid.pocket.drawing import draw
from prunesid.pocket.gemini.model import SIDE
from prunesid.pocket.model import GRID
from prunesid.pocket.next.scenes import sample_scene
from prunesid.pocket.scenes import Scene
from prunesid.pocket.training.labels import PatchTargets, patch_targets
from prunesid.pocket.training.tower import window_positions

if TYPE_CHECKING:
    from PIL.Image import Image

    from prunesid.families.mini_gemini import MiniGeminiProcessor

PATCHES = GRID * GRID
_PATCH = SIDE // GRID  # px of the high-resolution image that a patch covers


def window(rng: np.random.Generator) -> Scene:
    """A quarter of a square image, with as many things as a whole one has."""
    x, y = (_PATCH * int(corner) for corner in rng.integers(0, GRID // 2 + 1, 2))
    scene = sample_scene(rng, size=(SIDE // 2, SIDE // 2))
    return replace(scene, origin=(x, y), full=(SIDE, SIDE))


def _padding(scene: Scene) -> tuple[int, int]:
    """Pixels left of and above an image in its square."""
    width, height = scene.size
    side = max(scene.size)
    return (side - width) // 2, (side - height) // 2


def halved(scene: Scene) -> Scene:
    """The square at half its size; the image in its middle is what absolute places refer to.

    It has the shapes, and nothing else that a scene may hold.
    """
    left, top = _padding(scene)
    side = max(scene.size) // 2
    x, y = scene.origin
    width, height = scene.full
    shapes = tuple(
        replace(s, x=(s.x + left) / 2, y=(s.y + top) / 2, size=s.size / 2) for s in scene.shapes
    )
    return Scene(
        scene.kind, (side, side), scene.background, shapes,
        origin=((x - left) // 2, (y - top) // 2), full=(width // 2, height // 2),
    )  # fmt: skip


def batch_of(scenes: Sequence[Scene], processor: MiniGeminiProcessor) -> dict[str, Tensor]:
    """B scenes whose squares have the side that `processor` gives its images; P patches each.

    pixel_values, pixel_values_aux  as `processor` makes them
    positions  (B, 1 + P) rows of the tower's position table
    content    (B, P) bool: the patch shows more than background
    own        (B, P, 2) each patch's place as a share of the square

    The other entries are the fields of `PatchTargets`, each (B, ...); patches of padding have
    weight 0.
    """
    pictures: list[Image] = []
    targets: list[PatchTargets] = []
    for scene in scenes:
        picture, mask, regions = draw(scene)
        left, top = _padding(scene)
        mask = np.pad(mask, ((top, top), (left, left)))[::2, ::2]
        smaller = [
            replace(
                r,
                center=((r.center[0] + left) / 2, (r.center[1] + top) / 2),
                extent=r.extent / 2,
            )
            for r in regions
        ]
        found = patch_targets(halved(scene), mask, smaller)
        inside = ((found.center >= 0) & (found.center <= 1)).all(1)
        center = found.center.clip(0, 1)
        targets.append(replace(found, center=center, weight=found.weight * inside))
        pictures.append(picture)
    stacked = {
        name: torch.from_numpy(np.stack([getattr(t, name) for t in targets]))
        for name in PatchTargets.__dataclass_fields__
    }
    corner = torch.tensor([scene.origin for scene in scenes]) // _PATCH
    positions = window_positions(corner[:, 1], corner[:, 0], processor.config.grid)
    cell = positions[:, 1:] - 1
    return (
        stacked
        | processor.images(pictures)
        | {
            "positions": positions,
            # Foreground is given at 7 x 7 places of each patch.
            "content": stacked["foreground"].amax(-1) > 0,
            "own": (torch.stack([cell % GRID, cell // GRID], -1) + 0.5) / GRID,
        }
    )
