"""LLaVA-OneVision (transformers' `LlavaOnevisionForConditionalGeneration`): images, and clips.

The model projects before it packs: tokens are pruned as the language model gets them, with nothing
left to project. An image alone in its prompt is two rows: the base crop, and the high-resolution
map as the model has it, unpadded and shrunk (see `anyres_max`). The images of a prompt of several
have no map: each is padded to a square, its one row. The rows of a clip are its frames, which the
model pools: 27 x 27 patches to 14 x 14 tokens. A budget is shared evenly by the rows of an image or
clip.

A medium of which everything is kept enters as the unmodified model has it, with a newline embedding
after each row of the map, after the one crop, or after the last frame. Otherwise the tokens enter
crop after crop in the order that the method gave them, by the option:

newline  "drop": without newlines. "rows": the tokens of the map in raster order, a newline after
         each of its rows that holds one; then tokens that come from no patch (merged).

The tower has no CLS token; the attention that a patch receives takes the place of CLS attention. It
is unpadded and shrunk, or pooled, like the features; so are keys and the outputs of other blocks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from prunesid.core.crops import CHOICES, DROP
from prunesid.core.needs import Needs
from prunesid.core.parameters import Param
from prunesid.core.record import VisionRecord
from prunesid.core.rectangle import Box
from prunesid.families import register
from prunesid.families.adapter import Crop, Entering
from prunesid.families.base import Adapter, one_row_each
from prunesid.families.inputs.anyres import (
    check_resolutions,
    crop_grid,
    in_rows,
    is_whole,
    map_cells,
    shown_box,
)
from prunesid.families.inputs.anyres_max import (
    most_crops_kept,
    pack_record,
    pool_record,
    pooled_side,
    shrunk,
)
from prunesid.families.inputs.conversations import QWEN_1_5, conv_template
from prunesid.families.inputs.images_and_clips import (
    IMAGE_TYPE,
    Media,
    in_order,
    numbered,
    same_length,
    split,
    types_of,
)
from prunesid.families.inputs.processors import frame_pixels, load_video_parts
from prunesid.families.towers.clip import SIGLIP_NAMES, feature_block, read_clip
from prunesid.images.medium import IMAGE, MAP, PADDED, VIDEO, WHOLE
from prunesid.images.records import ImageRecords, by_grid

if TYPE_CHECKING:
    from PIL.Image import Image

Shown = tuple[str, list[VisionRecord], dict[str, Any]]
"""Kind, rows and layout of a medium."""

# Pixels of an image in a prompt that shows others too.
SQUARES = "pixel_values_squares"


@register("llava_onevision")
class LlavaOnevision(Adapter):
    """Adapter; see `prunesid.families.base.Adapter` for the shapes."""

    OPTIONS: ClassVar[Mapping[str, Param]] = {
        "newline": Param(DROP, str, CHOICES["newline"]),
        "conv_template": conv_template(QWEN_1_5),
    }

    # The cost of its tower has no formula here: a map is one row, but several crops of the tower.

    def __init__(self, model: Any, processor: Any, **options: object) -> None:
        super().__init__(model, processor, **options)
        config = model.config
        self.feature_block = feature_block(config, "siglip_vision_model", "full")
        check_resolutions(config, processor.image_processor)
        if self.decoder.has_sliding_layers:
            raise ValueError("decoders with sliding-window attention are not supported")
        vision = config.vision_config
        self.num_blocks = vision.num_hidden_layers
        self.side = vision.image_size // vision.patch_size
        self.most_crops = most_crops_kept(config)

    load_processor = staticmethod(load_video_parts)

    def preprocess(self, media: Media) -> dict[str, Tensor]:
        """Inputs of images and of clips, and `media_types` (M,) where there are both.

        Images: `pixel_values` (I, most crops, 3, H, W), `image_sizes` and `batch_num_images`, each
        alone in its prompt. Where there are several, also `pixel_values_squares` (I, 3, H, W), as
        the processor makes them of images that share a prompt: only `encode` is told which do.
        Clips: `pixel_values_videos` (V, F, 3, H, W). ValueError if their numbers of frames
        differ.
        """
        pictures, clips = split(media)
        inputs = types_of(media)
        if pictures:
            inputs |= self._pictures(self.pictures(pictures))
        if clips:
            frames = same_length(clips)
            shown = [frame for clip in clips for frame in clip.frames]
            # A frame is as the base crop of an image, which is all of it.
            side = self.model.config.vision_config.image_size
            crops = frame_pixels(self.processor, shown, side, image_grid_pinpoints=[[side, side]])
            inputs["pixel_values_videos"] = crops[:, 0].unflatten(0, (len(clips), frames))
        return inputs

    def _pictures(self, pictures: Sequence[Image]) -> dict[str, Tensor]:
        found = self.processor.image_processor(pictures, return_tensors="pt")
        names = ("pixel_values", "image_sizes", "batch_num_images")
        inputs = {name: torch.as_tensor(found[name]) for name in names}
        if len(pictures) > 1:
            together = self.processor.image_processor([pictures], return_tensors="pt")
            inputs[SQUARES] = together["pixel_values"][:, 0]
        return inputs

    def records(
        self, inputs: Mapping[str, Tensor], needs: Needs, names: Sequence[str] | None
    ) -> ImageRecords:
        """ValueError for inputs without images and clips."""
        images: list[Shown] = []
        clips: list[Shown] = []
        if "pixel_values" in inputs:
            owners = names
            if names is not None and "media_types" in inputs:
                types = inputs["media_types"].tolist()
                owners = [n for n, t in zip(names, types, strict=True) if t == IMAGE_TYPE]
            images = self._images(inputs, needs, owners)
        if "pixel_values_videos" in inputs:
            clips = self._clips(inputs["pixel_values_videos"], needs)
        if not images and not clips:
            raise ValueError("inputs hold neither images nor clips")
        shown = in_order(inputs, images, clips)
        media = numbered((kind, len(own), layout) for kind, own, layout in shown)
        rows = [row for _, own, _ in shown for row in own]
        if needs.projected:
            rows = [replace(row, projected=row.features) for row in rows]
        groups, members = by_grid([(row, [number]) for number, row in enumerate(rows)])
        return ImageRecords.named(groups, members, media, names)

    def _read(self, pixels: Tensor, needs: Needs) -> VisionRecord:
        """The record of crops or frames (B, 3, H, W), projected."""
        model, block = self.model.model, self.feature_block
        record = read_clip(model.vision_tower, pixels, block, needs, names=SIGLIP_NAMES)
        return replace(record, features=model.multi_modal_projector(record.features))

    def _images(
        self, inputs: Mapping[str, Tensor], needs: Needs, names: Sequence[str] | None
    ) -> list[Shown]:
        sizes = inputs["image_sizes"].tolist()
        # Rows and columns of the sub-crops of each image; None if it has none.
        grids = [
            crop_grid(size, self.model.config) if alone else None
            for size, alone in zip(sizes, _alone(inputs, names), strict=True)
        ]
        pixels = [_crops(inputs, number, grid) for number, grid in enumerate(grids)]
        record = self._read(torch.cat(pixels), needs)
        found: list[Shown] = []
        first = 0
        for size, grid, crops in zip(sizes, grids, map(len, pixels), strict=True):
            own = [record.rows(slice(first, first + 1))]
            layout: dict[str, Any] = {"view": PADDED, MAP: None}
            if grid is not None:
                shown = shown_box(size, grid, self.side)
                target = shrunk(shown.grid, self.side, self.most_crops)
                part = [edge / self.side for edge in shown.values]
                layout = {"view": WHOLE, MAP: list(target), "tiles": list(grid), "part": part}
                # A very narrow image may leave nothing of the map.
                if shown.size:
                    high = record.rows(slice(first + 1, first + crops))
                    own.append(pack_record(high, grid, shown, target))
            found.append((IMAGE, own, layout))
            first += crops
        return found

    def _clips(self, pixels: Tensor, needs: Needs) -> list[Shown]:
        """Rows and layouts of clips (V, F, 3, H, W)."""
        record = pool_record(self._read(pixels.flatten(0, 1), needs))
        frames = [record.rows(slice(row, row + 1)) for row in range(len(record))]
        size = pixels.shape[1]
        return [
            (VIDEO, frames[first : first + size], {"view": WHOLE, "frames": size})
            for first in range(0, len(frames), size)
        ]

    @torch.no_grad()
    def enter(self, crops: Sequence[Crop], layout: Mapping[str, Any]) -> Entering:
        tokens = torch.cat([crop.tokens for crop in crops]).to(self.device, self.dtype)
        newline = self.model.model.image_newline.to(tokens)
        rows, columns = layout.get(MAP) or (0, 0)
        sizes = [self.side**2, rows * columns][: 2 if rows * columns else 1]
        if "frames" in layout:
            sizes = [pooled_side(self.side) ** 2] * layout["frames"]
        whole = is_whole(crops, sizes)
        if layout.get(MAP) is None:
            return Entering(torch.cat([tokens, newline[None]]) if whole else tokens)
        if not whole and self.options["newline"] == DROP:
            return Entering(tokens)
        base = len(crops[0].index)
        boxes = [Box(0, 0, rows, columns)][: len(crops) - 1]
        high = in_rows(
            tokens[base:], map_cells(crops[1:], boxes), newline, range(rows) if whole else None
        )
        return Entering(torch.cat([tokens[:base], high]))

    def encoder_outputs(self, media: Mapping[str, Sequence[Tensor]]) -> dict[str, Any]:
        found = super().encoder_outputs(media)
        if VIDEO in found:
            found[VIDEO] = one_row_each(media[VIDEO])
        return found


def _alone(inputs: Mapping[str, Tensor], names: Sequence[str] | None) -> list[bool]:
    """Whether each image is the only one of its prompt, as the processor decides it."""
    if SQUARES in inputs and names is not None:
        counts = Counter(names)
        return [counts[name] == 1 for name in names]
    if "batch_num_images" not in inputs:
        return [True] * len(inputs["image_sizes"])
    shown = torch.as_tensor(inputs["batch_num_images"]).tolist()
    return [count == 1 for count in shown for _ in range(count)]


def _crops(inputs: Mapping[str, Tensor], number: int, grid: tuple[int, int] | None) -> Tensor:
    """(C, 3, H, W) of an image, without what pads the batch."""
    if grid is None and SQUARES in inputs:
        return inputs[SQUARES][number : number + 1]
    return inputs["pixel_values"][number, : 1 if grid is None else 1 + grid[0] * grid[1]]
