"""LLaVA-NeXT (transformers' `LlavaNextForConditionalGeneration`): LLaVA-1.6.

An image is a base crop and 1 to 4 sub-crops (see `anyres`); each is a row that a method reduces on
its own. They share a budget evenly unless the method has a split of its own (HiRED). Only CLIP towers whose CLS token is dropped and a single feature layer are supported.

An image of which everything is kept enters as the unmodified model has it: base crop, then the
high-resolution map without its padding, a newline behind each row. Otherwise, by the options:

unpad    true: a sub-crop's candidates are the patches that show the image, so the crops of an image
unpad    true: a sub-crop's candidates are the patches that show the image, so the crops of an image
         may differ in size; a method inside the encoder merges these alone. false: all patches, as in
         the code of methods that switch unpadding off; those of the padding are left out where
         everything is kept.
scope    "crop": a budget is meant for the most crops that the checkpoint makes, N / 5 for each crop
         that the image has; "image": all of it for the crops that the image has
newline  "drop": no newlines, as the LLaVA-NeXT code of VisionZip and HiRED; crop after crop, tokens
         in the order that the method gave them. "rows": the base crop so, then the tokens of the
         sub-crops in raster order of the map, a newline behind each row that holds one; then tokens
         of the sub-crops that come from no patch (CLS, merged), crop after crop.

conv_template  as in `llava`, by the language model: "vicuna_v1", "chatml_direct" (34B), or
         "checkpoint", which for Mistral is the authors' mistral_instruct

text_tower  as of LLaVA (`prunesid.models.llava`)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from prunesid.asking import reading
from prunesid.box import Box
from prunesid.methods import NO_NEEDS, Needs
from prunesid.models import register
from prunesid.models.adapter import Crop, Entering
from prunesid.models.anyres import (
    DROP,
    NEWLINES,
    check_resolutions,
    crop_boxes,
    crop_grid,
    cut_all,
    in_rows,
    is_whole,
    map_cells,
    most_crops,
    shown_box,
)
from prunesid.models.clip import read_clip
from prunesid.models.conversations import CHATML_DIRECT, VICUNA_V1, conv_template
from prunesid.models.llava import Llava
from prunesid.models.views import Views
from prunesid.parameters import Param
from prunesid.records import IMAGE, PARTS, SUB_CROPS, WHOLE, Medium, Records

if TYPE_CHECKING:
    from PIL.Image import Image

    from prunesid.media import Clip

CROP, PER_IMAGE = "crop", "image"


@register("llava_next")
class LlavaNext(Llava):
    """Adapter; see `prunesid.models.Adapter` for the shapes."""

    OPTIONS: ClassVar[Mapping[str, Param]] = {
        **Llava.OPTIONS,
        "newline": Param(DROP, str, NEWLINES),
        "scope": Param(CROP, str, (CROP, PER_IMAGE)),
        "unpad": Param(True, bool),
        "conv_template": conv_template(VICUNA_V1, CHATML_DIRECT),
    }
    PADDING = "base crop stretched; sub-crops padded in black"
    PROMPT = f"{VICUNA_V1}, {CHATML_DIRECT} or mistral_instruct, by the language model"

    def __init__(self, model: Any, processor: Any, **options: object) -> None:
        super().__init__(model, processor, **options)
        check_resolutions(model.config, processor.image_processor)
        vision = model.config.vision_config
        self.side = vision.image_size // vision.patch_size
        self.num_tokens = None
        self.most_crops = most_crops(model.config)

    def preprocess(self, media: Sequence[Image | Clip]) -> dict[str, Tensor]:
        """`pixel_values` (M, most crops, 3, H, W), padded with crops of zeros, and `image_sizes`."""
        found = self.processor.image_processor(self.pictures(media), return_tensors="pt")
        return {name: found[name] for name in ("pixel_values", "image_sizes")}

    def _cut(
        self, inputs: Mapping[str, Tensor]
    ) -> tuple[Tensor, list[tuple[int, Box]], list[Medium]]:
        """Pixels (R', 3, S, S) of all crops, the rows (crop, patches that it holds), and the media."""
        config, side = self.model.config, self.side
        sizes = inputs["image_sizes"].tolist()
        grids = [crop_grid(size, config) for size in sizes]
        real = [
            own[: 1 + rows * columns]
            for own, (rows, columns) in zip(inputs["pixel_values"], grids, strict=True)
        ]
        parts: list[tuple[int, Box]] = []
        media: list[Medium] = []
        first = 0
        for size, grid in zip(sizes, grids, strict=True):
            shown = shown_box(size, grid, side)
            own, boxes, there = [(first, Box(0, 0, side, side))], [], []
            for number, crop in enumerate(crop_boxes(grid, side)):
                part = shown.within(crop) if self.options["unpad"] else own[0][1]
                # A very narrow image may leave nothing of a sub-crop.
                if part.size:
                    own.append((first + 1 + number, part))
                    boxes.append(part.moved(crop.top, crop.left).values)
                    there.append(number)
            layout: dict[str, Any] = {
                "view": WHOLE, "boxes": boxes, "shown": shown.values,
                SUB_CROPS: {"grid": list(grid), "there": there},
            }  # fmt: skip
            if self.options["unpad"]:
                layout[PARTS] = [box.values for _, box in own]
            media.append(Medium(IMAGE, tuple(range(len(parts), len(parts) + len(own))), layout))
            parts += own
            first += 1 + grid[0] * grid[1]
        return torch.cat(real), parts, media

    def views(self, inputs: Mapping[str, Tensor]) -> Views:
        pixels, parts, media = self._cut(inputs)
        seen = pixels[[number for number, _ in parts]]
        return Views([(self.model.model.vision_tower, seen)], media, self._share)

    @property
    def _share(self) -> int | None:
        return self.most_crops if self.options["scope"] == CROP else None

    @torch.no_grad()
    def encode(
        self,
        inputs: Mapping[str, Tensor],
        needs: Needs = NO_NEEDS,
        names: Sequence[str] | None = None,
    ) -> Records:
        needs = reading(needs, self.text_tower)
        pixels, parts, media = self._cut(inputs)
        tower = self.model.model.vision_tower
        record = read_clip(tower, pixels, self.feature_block, needs, crops=True)
        groups, members = cut_all(record, parts)
        groups = tuple(self.beside(own, needs) for own in groups)
        return Records.named(groups, members, media, names, self._share)

    @torch.no_grad()
    def enter(self, crops: Sequence[Crop], layout: Mapping[str, Any]) -> Entering:
        boxes = [Box(*values) for values in layout["boxes"]]
        tokens = self.project(torch.cat([crop.tokens for crop in crops]))
        whole = is_whole(crops, [self.side**2, *(box.size for box in boxes)])
        if not whole and self.options["newline"] == DROP:
            return Entering(tokens)
        base = len(crops[0].index)
        cells, high = map_cells(crops[1:], boxes), tokens[base:]
        rows = None
        if whole:
            shown = Box(*layout["shown"])
            rows = range(shown.top, shown.bottom)
            real = shown.holds(cells)
            cells, high = cells[real], high[real.to(high.device)]
        high = in_rows(high, cells, self.model.model.image_newline, rows)
        return Entering(torch.cat([tokens[:base], high]))
