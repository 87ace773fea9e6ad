"""LLaVA-OneVision (transformers' `LlavaOnevisionForConditionalGeneration`), on images.

The model projects before it packs: tokens are pruned as the language model gets them, so nothing is
left to project. An image alone in its prompt is two rows: the base crop, and the high-resolution map
as the model has it, unpadded and shrunk (see `anyres_max`). The images of a prompt of several have
no map: each is padded to a square, and that is its one row. A budget is shared evenly by the rows of
an image.

An image of which everything is kept enters as the unmodified model has it: a newline embedding
stands behind each row of the map, or behind the one crop. Otherwise there are no newlines, and the
tokens enter row after row in the order that the method gave them.

The tower has no CLS token; the attention that a patch receives stands in for CLS attention, and is
unpadded and shrunk like the features. So are keys and the outputs of other blocks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from prunesid.methods import NO_NEEDS, Needs
from prunesid.models import register
from prunesid.models.adapter import Crop, Entering
from prunesid.models.anyres import check_resolutions, crop_grid, is_whole, shown_box
from prunesid.models.anyres_max import most_crops_kept, pack_record, shrunk
from prunesid.models.base import TransformersAdapter
from prunesid.models.clip import feature_block
from prunesid.models.llava import only_images
from prunesid.models.processors import Parts, load_parts
from prunesid.models.siglip import read_siglip
from prunesid.record import VisionRecord
from prunesid.records import IMAGE, PADDED, WHOLE, Medium, Records, by_grid

if TYPE_CHECKING:
    from PIL.Image import Image

    from prunesid.media import Clip

# What an image is where its prompt shows others too.
SQUARES = "pixel_values_squares"


@register("llava_onevision")
class LlavaOnevision(TransformersAdapter):
    """Adapter; see `prunesid.models.Adapter` for the shapes."""

    # The cost of its tower has no formula here: a map is one row, but several crops of the tower.

    def __init__(self, model: Any, processor: Any, **options: object) -> None:
        super().__init__(model, processor, **options)
        config = model.config
        refuse_other_towers(config)
        check_resolutions(config, processor.image_processor)
        if self.decoder.has_sliding_layers:
            raise ValueError("decoders with sliding-window attention are not supported")
        vision = config.vision_config
        self.num_blocks = vision.num_hidden_layers
        self.feature_block = feature_block(config.vision_feature_layer, self.num_blocks)
        self.side = vision.image_size // vision.patch_size
        self.most_crops = most_crops_kept(config)

    @staticmethod
    def load_processor(path: str | Path) -> Parts:
        return load_parts(path)

    def preprocess(self, media: Sequence[Image | Clip]) -> dict[str, Tensor]:
        """`pixel_values` (M, most crops, 3, H, W), `image_sizes` and `batch_num_images` of images alone.

        Where there are several, also `pixel_values_squares` (M, 3, H, W), what the processor makes of
        images that share a prompt: only `encode` is told which do.
        """
        pictures = only_images(media)
        found = self.processor.image_processor(pictures, return_tensors="pt")
        names = ("pixel_values", "image_sizes", "batch_num_images")
        inputs = {name: torch.as_tensor(found[name]) for name in names}
        if len(pictures) > 1:
            together = self.processor.image_processor([pictures], return_tensors="pt")
            inputs[SQUARES] = together["pixel_values"][:, 0]
        return inputs

    @torch.no_grad()
    def encode(
        self,
        inputs: Mapping[str, Tensor],
        needs: Needs = NO_NEEDS,
        names: Sequence[str] | None = None,
    ) -> Records:
        """ValueError for clips."""
        if "pixel_values_videos" in inputs:
            raise ValueError("the llava_onevision adapter takes images, not clips")
        sizes = inputs["image_sizes"].tolist()
        # Rows and columns of the sub-crops of each image; None where it has none.
        grids = [
            crop_grid(size, self.model.config) if alone else None
            for size, alone in zip(sizes, _alone(inputs, names), strict=True)
        ]
        pixels = [_crops(inputs, number, grid) for number, grid in enumerate(grids)]
        tower = self.model.model.vision_tower
        record = read_siglip(tower, torch.cat(pixels), self.feature_block, needs)
        record = replace(record, features=self.model.model.multi_modal_projector(record.features))
        rows: list[VisionRecord] = []
        media: list[Medium] = []
        first = 0
        for size, grid, crops in zip(sizes, grids, map(len, pixels), strict=True):
            own = [record.rows(slice(first, first + 1))]
            layout: dict[str, Any] = {"view": PADDED, "map": None}
            if grid is not None:
                shown = shown_box(size, grid, self.side)
                target = shrunk(shown.grid, self.side, self.most_crops)
                layout = {"view": WHOLE, "map": list(target)}
                # A very narrow image may leave nothing of the map.
                if shown.size:
                    high = record.rows(slice(first + 1, first + crops))
                    own.append(pack_record(high, grid, shown, target))
            media.append(Medium(IMAGE, tuple(range(len(rows), len(rows) + len(own))), layout))
            rows += own
            first += crops
        if needs.projected:
            rows = [replace(row, projected=row.features) for row in rows]
        groups, members = by_grid([(row, [number]) for number, row in enumerate(rows)])
        return Records.named(groups, members, media, names)

    @torch.no_grad()
    def enter(self, crops: Sequence[Crop], layout: Mapping[str, Any]) -> Entering:
        tokens = torch.cat([crop.tokens for crop in crops]).to(self.device, self.dtype)
        rows, columns = layout["map"] or (0, 0)
        sizes = [self.side**2, rows * columns][: 2 if rows * columns else 1]
        if not is_whole(crops, sizes):
            return Entering(tokens)
        newline = self.model.model.image_newline.to(tokens)
        if layout["map"] is None:
            return Entering(torch.cat([tokens, newline[None]]))
        base, high = tokens.split([self.side**2, rows * columns])
        high = high.reshape(rows, columns, tokens.shape[1])
        lines = torch.cat([high, newline.expand(rows, 1, -1)], dim=1)
        return Entering(torch.cat([base, lines.flatten(0, 1)]))


def refuse_other_towers(config: Any) -> None:
    """ValueError unless the tower is SigLIP's, read at one block."""
    tower = config.vision_config.model_type
    if tower != "siglip_vision_model":
        raise ValueError(
            f"the llava_onevision adapter needs a siglip_vision_model tower, not {tower}"
        )
    strategy = config.vision_feature_select_strategy
    if strategy != "full":
        raise ValueError(f"vision_feature_select_strategy must be 'full', not {strategy!r}")
    layer = config.vision_feature_layer
    states = config.vision_config.num_hidden_layers + 1
    if not isinstance(layer, int) or not -states < layer < states or layer % states == 0:
        raise ValueError(f"vision_feature_layer must name one block's output, not {layer!r}")


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
