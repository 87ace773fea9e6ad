"""What the tower sees of an image, and where its patches stand in the language model's prompt."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers.models.llava_next.configuration_llava_next import LlavaNextConfig

from prunesid.families.inputs.anyres import crop_boxes, crop_grid, shown_box
from prunesid.pocket.drawing import draw
from prunesid.pocket.model import GRID, IMAGE_SIZE
from prunesid.pocket.next.model import PINPOINTS
from prunesid.pocket.scenes import Scene
from prunesid.pocket.training.grounding import NONE, PLACES
from prunesid.pocket.training.tower import tower_forward

BASE = GRID * GRID
_CROPS = LlavaNextConfig(
    vision_config={"model_type": "clip_vision_model", "image_size": IMAGE_SIZE},
    image_grid_pinpoints=PINPOINTS,
)


@dataclass(frozen=True)
class Layout:
    """The V visual tokens of an image: base crop, then the map without padding, row by row.

    source  (V,) the patch among those of all crops, crop after crop; NONE for a row's newline
    shown   rows and columns of the map without padding
    place   (V, 2) column and row, in PLACES bins of the base crop or of 672 px; NONE for newlines
    """

    source: Tensor
    shown: tuple[int, int]
    place: Tensor

    @property
    def map_tokens(self) -> Tensor:
        """(rows * columns,) numbers of the map's tokens in raster order."""
        return BASE + (self.source[BASE:] != NONE).nonzero()[:, 0]


def _bins(rows: int, columns: int, side: int) -> Tensor:
    """(rows, columns, 2) column and row of each cell of a grid in PLACES bins of `side` cells."""
    row, column = (torch.arange(n) * PLACES // side for n in (rows, columns))
    return torch.stack([column.expand(rows, -1), row[:, None].expand(-1, columns)], -1)


@lru_cache
def layout(size: tuple[int, int]) -> Layout:
    """The layout of an image of (width, height), at most 672 px each way."""
    grid = crop_grid(size[::-1], _CROPS)
    numbers = torch.empty(grid[0] * GRID, grid[1] * GRID, dtype=torch.int64)
    for crop, box in enumerate(crop_boxes(grid, GRID), start=1):
        patches = torch.arange(BASE).view(GRID, GRID) + crop * BASE
        numbers[box.top : box.bottom, box.left : box.right] = patches
    box = shown_box(size[::-1], grid, GRID)
    shown = numbers[box.top : box.bottom, box.left : box.right]
    rows, columns = shown.shape
    place = torch.cat([_bins(rows, columns, 2 * GRID), torch.full((rows, 1, 2), NONE)], 1)
    return Layout(
        torch.cat([torch.arange(BASE), F.pad(shown, (0, 1), value=NONE).flatten()]),
        (rows, columns),
        torch.cat([_bins(GRID, GRID, GRID).flatten(0, 1), place.flatten(0, 1)]),
    )


@dataclass(frozen=True)
class View:
    """An image to the frozen tower.

    features  (crops * 576, D) of the last block but one
    content   (V,) bool: the token shows more than background, or is a newline
    """

    features: Tensor
    content: Tensor


def _content(mask: Tensor, where: Layout) -> Tensor:
    """(V,) bool from the mask (height, width) of region numbers."""
    something = (mask > 0).float()[None]
    flags = where.source == NONE
    for numbers, shape in ((torch.arange(BASE), (GRID, GRID)), (where.map_tokens, where.shown)):
        flags[numbers] = F.adaptive_max_pool2d(something, shape)[0].flatten() > 0
    return flags


@torch.no_grad()
def view_of(scene: Scene, tower: Any, image_processor: Any) -> View:
    """The view of a scene; `tower` ends with the block whose features are taken."""
    picture, mask, _ = draw(scene)
    pixels = image_processor([picture], return_tensors="pt")["pixel_values"][0]
    positions = torch.arange(1 + BASE).expand(len(pixels), -1)
    features = tower_forward(tower, pixels, positions)[-1][:, 1:].flatten(0, 1)
    return View(features, _content(torch.from_numpy(mask.copy()), layout(scene.size)))


class Gallery:
    """Views in float16 files of a folder, made when they are first asked for."""

    def __init__(self, folder: Path, tower: Any, image_processor: Any):
        self.folder, self.tower, self.image_processor = folder, tower, image_processor
        folder.mkdir(parents=True, exist_ok=True)

    def view(self, name: Sequence[int], scene: Scene) -> View:
        """The view of `scene`, whose numbers `name` tell it from all other scenes."""
        path = self.folder / f"{'-'.join(map(str, name))}.safetensors"
        if not path.exists():
            made = view_of(scene, self.tower, self.image_processor)
            partial = path.with_suffix(".partial")
            save_file({"features": made.features.half(), "content": made.content}, partial)
            os.replace(partial, path)
        stored = load_file(path)
        return View(stored["features"].float(), stored["content"])
