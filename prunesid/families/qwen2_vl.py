"""Qwen2-VL (transformers' `Qwen2VLForConditionalGeneration`): images of any size, and clips.

Tokens are pruned after the patch merger, where they are as wide as the language model, so nothing
is left to project. They keep the rotary positions (time, row, column) that they have in the full
prompt, and the text after a medium keeps its own.

The frames of a clip are its temporal patches (two frames of the video each); a budget is shared
among them. A smaller image has the positions that the unmodified model gives it; the frames of a
clip become smaller alike, by the smallest share. For what stands in for CLS attention, see
`prunesid.families.towers.qwen`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from prunesid.core.needs import Needs
from prunesid.core.record import GRID, Kept, VisionRecord
from prunesid.families import register
from prunesid.families.adapter import Crop, Entering
from prunesid.families.base import Adapter
from prunesid.families.inputs.images_and_clips import (
    CLIP_TYPE,
    IMAGE_TYPE,
    Media,
    in_order,
    numbered,
)
from prunesid.families.inputs.processors import load_video_parts
from prunesid.families.inputs.qwen import preprocess, shrink
from prunesid.families.towers.qwen import read_qwen
from prunesid.images.medium import IMAGE, VIDEO, WHOLE, Medium, grouped
from prunesid.images.records import ImageRecords, by_grid
from prunesid.methods.encoder import Grid, Plans
from prunesid.methods.features.pool import pooled_grid

INPUTS = {
    IMAGE: ("pixel_values", "image_grid_thw"),
    VIDEO: ("pixel_values_videos", "video_grid_thw"),
}


def _present(inputs: Mapping[str, Tensor]) -> Iterator[tuple[str, str, str]]:
    """(kind, name of its pixels, name of its grids) of the kinds of media in the inputs."""
    return ((kind, *names) for kind, names in INPUTS.items() if names[0] in inputs)


@register("qwen2_vl")
class Qwen2VL(Adapter):
    """Adapter; see `prunesid.families.base.Adapter` for the shapes."""

    TIMED: ClassVar[bool] = False
    """Whether the seconds of a clip count in its positions."""

    def __init__(self, model: Any, processor: Any, **options: object) -> None:
        super().__init__(model, processor, **options)
        if getattr(self.decoder, "has_sliding_layers", False):
            raise ValueError("decoders with sliding-window attention are not supported")
        self.tower = model.model.visual
        self.num_blocks = len(self.tower.blocks)
        self.feature_block = self.num_blocks - 1
        self.merge_size = self.tower.spatial_merge_size
        # The media of a benchmark have few different grids.
        self._positions: dict[tuple[Any, ...], tuple[Tensor, int]] = {}

    load_processor = staticmethod(load_video_parts)

    def preprocess(self, media: Media) -> dict[str, Tensor]:
        return preprocess(self.processor, media, timed=self.TIMED)

    def tower_order(self, grids: Tensor) -> Tensor | None:
        """Raster number of the merged token at each place of the tower's sequence; None: equal."""
        return None

    def seconds(self, inputs: Mapping[str, Tensor]) -> Sequence[Any]:
        """Time of each clip of a batch, as its layout needs it; None if it is not known."""
        times = inputs.get("second_per_grid_ts")
        return [None] * len(inputs["video_grid_thw"]) if times is None else times.tolist()

    def records(
        self, inputs: Mapping[str, Tensor], needs: Needs, names: Sequence[str] | None
    ) -> ImageRecords:
        read: dict[str, list[VisionRecord]] = {IMAGE: [], VIDEO: []}
        for kind, pixels, grid in _present(inputs):
            grids = inputs[grid].cpu()
            order = self.tower_order(grids)
            read[kind] = read_qwen(self.tower, inputs[pixels], grids, needs, order)
        media, records = self._media(inputs), in_order(inputs, read[IMAGE], read[VIDEO])
        groups, members = by_grid(
            [(record, medium.rows) for record, medium in zip(records, media, strict=True)]
        )
        return ImageRecords.named(groups, members, media, names)

    def _media(self, inputs: Mapping[str, Tensor]) -> list[Medium]:
        """The media of a batch in their order; frames are rows."""
        layouts: dict[str, list[dict[str, Any]]] = {IMAGE: [], VIDEO: []}
        for kind, _, grid in _present(inputs):
            grids = inputs[grid].tolist()
            seconds = self.seconds(inputs) if kind == VIDEO else [None] * len(grids)
            layouts[kind] = [
                {"view": WHOLE, "kind": kind, "grid_thw": own, "seconds": second}
                for own, second in zip(grids, seconds, strict=True)
            ]
        return numbered(
            (layout["kind"], layout["grid_thw"][0], layout)
            for layout in in_order(inputs, layouts[IMAGE], layouts[VIDEO])
        )

    @torch.no_grad()
    def reduced(
        self, inputs: Mapping[str, Tensor], plans: Plans, names: Sequence[str] | None = None
    ) -> tuple[Kept, ImageRecords]:
        media = self._media(inputs)
        grids = [self._grid(medium.layout) for medium in media for _ in medium.rows]
        records = ImageRecords.without_features(
            grids, torch.zeros(len(grids), 1), grouped(names, media)
        )
        shares = records.patch_budgets(plans.budget).tolist()
        smaller = [
            plans.grid(grids[medium.rows[0]], min(shares[row] for row in medium.rows))
            for medium in media
        ]
        kept = self.encode(self._smaller(inputs, media, smaller)).all_tokens()
        own = [grid for grid, medium in zip(smaller, media, strict=True) for _ in medium.rows]
        changed = [one != grid for one, grid in zip(own, grids, strict=True)]
        device = kept.index.device
        index = kept.index.masked_fill(torch.tensor(changed, device=device)[:, None], -1)
        info = {GRID: torch.tensor(own, device=device)}
        return Kept(kept.tokens, index, kept.count, info), records

    def _grid(self, layout: Mapping[str, Any]) -> Grid:
        """Rows and columns of a medium's merged tokens."""
        _, rows, columns = layout["grid_thw"]
        return rows // self.merge_size, columns // self.merge_size

    def _smaller(
        self, inputs: Mapping[str, Tensor], media: Sequence[Medium], grids: Sequence[Grid]
    ) -> dict[str, Tensor]:
        """The inputs with media of `grids` rows and columns of merged tokens."""
        found, merge = dict(inputs), self.merge_size
        for kind, pixels, grid in _present(inputs):
            targets = [
                [len(medium.rows), rows * merge, columns * merge]
                for medium, (rows, columns) in zip(media, grids, strict=True)
                if medium.kind == kind
            ]
            before = inputs[grid].tolist()
            found[pixels] = shrink(inputs[pixels], before, targets, self.tower.config)
            found[grid] = torch.tensor(targets)
        return found

    def enter(self, crops: Sequence[Crop], layout: Mapping[str, Any]) -> Entering:
        """Tokens of a smaller image have the positions that the model gives that image.

        Other tokens have the position of their patch, and those of no patch the center of their
        frame. Where a frame has only tokens of no patch, as many as the cells of a smaller grid of
        its shape (as `pool` makes them), each has the center of its cell.
        """
        frames = len(crops)
        tokens = torch.cat([crop.tokens for crop in crops]).to(self.device, self.dtype)
        if crops[0].grid is not None:
            smaller = [frames, *(side * self.merge_size for side in crops[0].grid)]
            return Entering(tokens, *self._rope({**layout, "grid_thw": smaller}))
        size = self._grid(layout)
        positions, span = self._rope(layout)
        framed = positions.unflatten(1, (frames, -1))
        own = [framed[:, at, _places(crop.index.cpu(), size)] for at, crop in enumerate(crops)]
        return Entering(tokens, torch.cat(own, dim=1), span)

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
