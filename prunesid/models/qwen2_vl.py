"""Qwen2-VL (transformers' `Qwen2VLForConditionalGeneration`): images of any size, and clips.

Tokens are pruned behind the patch merger, where they are as wide as the language model, so nothing
is left to project. They keep the rotary positions (time, row, column) that they have in the full
prompt, and the text behind a medium keeps its own.

The frames of a clip are its temporal patches (two frames of the video each); a budget is shared
among them. For what stands in for CLS attention, see `prunesid.models.qwen_tower`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from prunesid.methods import NO_NEEDS, Needs
from prunesid.methods.pool import pooled_grid
from prunesid.models import register
from prunesid.models.adapter import Crop, Entering
from prunesid.models.base import TransformersAdapter
from prunesid.models.mixed import CLIP_TYPE, IMAGE_TYPE, in_order
from prunesid.models.processors import VideoParts, load_video_parts
from prunesid.models.qwen_inputs import preprocess
from prunesid.models.qwen_tower import read_qwen
from prunesid.record import VisionRecord
from prunesid.records import IMAGE, VIDEO, WHOLE, Medium, Records, by_grid

if TYPE_CHECKING:
    from PIL.Image import Image

    from prunesid.media import Clip

INPUTS = {
    IMAGE: ("pixel_values", "image_grid_thw"),
    VIDEO: ("pixel_values_videos", "video_grid_thw"),
}


@register("qwen2_vl")
class Qwen2VL(TransformersAdapter):
    """Adapter; see `prunesid.models.Adapter` for the shapes."""

    TIMED: ClassVar[bool] = False
    """Whether the seconds of a clip count in its positions."""

    def __init__(self, model: Any, processor: Any, **options: object) -> None:
        super().__init__(model, processor, **options)
        if self.decoder.has_sliding_layers:
            raise ValueError("decoders with sliding-window attention are not supported")
        self.tower = model.model.visual
        self.num_blocks = len(self.tower.blocks)
        self.feature_block = self.num_blocks - 1
        self.merge_size = self.tower.spatial_merge_size
        # The media of a benchmark have few different grids.
        self._positions: dict[tuple[Any, ...], tuple[Tensor, int]] = {}

    @staticmethod
    def load_processor(path: str | Path) -> VideoParts:
        return load_video_parts(path)

    def preprocess(self, media: Sequence[Image | Clip]) -> dict[str, Tensor]:
        return preprocess(self.processor, media, timed=self.TIMED)

    def tower_order(self, grids: Tensor) -> Tensor | None:
        """Raster number of the merged token at each place of the tower's sequence; None: the same."""
        return None

    @torch.no_grad()
    def encode(
        self,
        inputs: Mapping[str, Tensor],
        needs: Needs = NO_NEEDS,
        names: Sequence[str] | None = None,
    ) -> Records:
        parts: list[tuple[str, list[int], float | None, VisionRecord]] = []
        for kind, (pixels, grid) in INPUTS.items():
            if pixels in inputs:
                grids = inputs[grid].cpu()
                order = self.tower_order(grids)
                records = read_qwen(self.tower, inputs[pixels], grids, needs, order)
                times = inputs.get("second_per_grid_ts") if kind == VIDEO else None
                seconds = [None] * len(grids) if times is None else times.tolist()
                parts += [
                    (kind, *own) for own in zip(grids.tolist(), seconds, records, strict=True)
                ]
        of_kind = {kind: [part for part in parts if part[0] == kind] for kind in INPUTS}
        return _records(in_order(inputs, of_kind[IMAGE], of_kind[VIDEO]), names)

    def enter(self, crops: Sequence[Crop], layout: Mapping[str, Any]) -> Entering:
        """Tokens without a patch of their own stand at the center of their frame.

        Where a frame has only such tokens, as many as the cells of a smaller grid of its shape (as
        `pool` makes them), each stands at the center of its cell.
        """
        frames, rows, columns = layout["grid_thw"]
        size = rows // self.merge_size, columns // self.merge_size
        positions, span = self._rope(layout)
        framed = positions.unflatten(1, (frames, -1))
        own = [
            framed[:, frame, _places(crop.index.cpu(), size)]
            for frame, crop in enumerate(crops)
        ]  # fmt: skip
        tokens = torch.cat([crop.tokens for crop in crops])
        return Entering(tokens.to(self.device, self.dtype), torch.cat(own, dim=1), span)

    def _rope(self, layout: Mapping[str, Any]) -> tuple[Tensor, int]:
        """Positions (3, tokens) of a whole medium from its first token's on, and its span.

        They are the model's own, of a prompt with one text token on either side of the medium.
        """
        key = (layout["kind"], *layout["grid_thw"], layout["seconds"])
        if key not in self._positions:
            grid = torch.tensor([layout["grid_thw"]])
            tokens = int(grid.prod()) // self.merge_size**2
            image = layout["kind"] == IMAGE
            types = torch.full((1, tokens + 2), IMAGE_TYPE if image else CLIP_TYPE)
            types[:, [0, -1]] = 0
            given: dict[str, Any] = {"image_grid_thw" if image else "video_grid_thw": grid}
            if layout["seconds"] is not None:
                given["second_per_grid_ts"] = torch.tensor([layout["seconds"]])
            found, _ = self.model.model.get_rope_index(torch.zeros_like(types), types, **given)
            relative = found[:, 0] - 1
            self._positions[key] = relative[:, 1:-1], int(relative[0, -1])
        return self._positions[key]


def _records(
    parts: Sequence[tuple[str, list[int], float | None, VisionRecord]], names: Sequence[str] | None
) -> Records:
    """Media in their order, each with its kind, grid, seconds and record of frames."""
    media: list[Medium] = []
    start = 0
    for kind, grid, seconds, record in parts:
        layout = {"view": WHOLE, "kind": kind, "grid_thw": grid, "seconds": seconds}
        media.append(Medium(kind, tuple(range(start, start + len(record))), layout))
        start += len(record)
    groups, members = by_grid(
        [(record, medium.rows) for (*_, record), medium in zip(parts, media, strict=True)]
    )
    return Records.named(groups, members, media, names)


def _places(index: Tensor, size: tuple[int, int]) -> Tensor:
    """The patch (n,) whose position each token of a frame takes, from its patch or -1."""
    rows, columns = size
    cells = pooled_grid(rows, columns, len(index))
    if bool((index < 0).all()) and cells[0] * cells[1] == len(index):
        row, column = (
            (2 * torch.arange(count) + 1) * side // (2 * count)
            for count, side in zip(cells, size, strict=True)
        )
        return (row[:, None] * columns + column).flatten()
    return torch.where(index < 0, rows // 2 * columns + columns // 2, index)
