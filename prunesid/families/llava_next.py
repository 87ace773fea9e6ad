"""LLaVA-NeXT (transformers' `LlavaNextForConditionalGeneration`): LLaVA-1.6.

An image is a base crop and 1 to 4 sub-crops (see `anyres`), all patches of each a row. Methods
treat them as their authors do, unless a user chooses otherwise by the options
(`prunesid.core.crops`); so a padding patch is a patch like others here, and `ImageRecords.compress`
leaves it out where it has to. Only CLIP towers whose CLS token is dropped and a single feature
layer are supported.

An image of which everything that the model shows is kept enters as the unmodified model has it:
base crop, then the high-resolution map without its padding, a newline after each row.

A method inside the encoder sees the crops one by one. Patches of the padding are not merged with
others unless `unpad` is "never".

conv_template  as in `llava`, by the language model: "vicuna_v1", "chatml_direct" (34B), or
               "checkpoint", which for Mistral is the authors' mistral_instruct
text_tower     as of LLaVA (`prunesid.families.llava`)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from prunesid.core.crops import OPTIONS, ROWS, Crops
from prunesid.core.parameters import Param, Value
from prunesid.core.record import NEWLINE
from prunesid.core.rectangle import Box
from prunesid.families import register
from prunesid.families.adapter import Crop, Entering
from prunesid.families.inputs.anyres import (
    check_resolutions,
    crop_boxes,
    crop_grid,
    in_rows,
    map_cells,
    most_crops,
    shown_box,
    with_newlines,
)
from prunesid.families.inputs.conversations import CHATML_DIRECT, VICUNA_V1, conv_template
from prunesid.families.inputs.images_and_clips import Media, numbered
from prunesid.families.llava import Llava
from prunesid.families.towers.planned_crops import TowerInputs
from prunesid.images.medium import IMAGE, SUB_CROPS, WHOLE


@register("llava_next")
class LlavaNext(Llava):
    """Adapter; see `prunesid.families.base.Adapter` for the shapes."""

    OPTIONS: ClassVar[Mapping[str, Param]] = {
        **OPTIONS,
        "conv_template": conv_template(VICUNA_V1, CHATML_DIRECT),
        "text_tower": Llava.OPTIONS["text_tower"],
    }

    @classmethod
    def checked(cls, model_type: str, options: Mapping[str, object]) -> dict[str, Value]:
        found = super().checked(model_type, options)
        Crops().under(found)
        return found

    def __init__(self, model: Any, processor: Any, **options: object) -> None:
        super().__init__(model, processor, **options)
        check_resolutions(model.config, processor.image_processor)
        vision = model.config.vision_config
        self.side = vision.image_size // vision.patch_size
        self.num_tokens = None
        self.most_crops = most_crops(model.config)

    def preprocess(self, media: Media) -> dict[str, Tensor]:
        """`pixel_values` (M, most crops, 3, H, W), padded by crops of zeros, and `image_sizes`."""
        found = self.processor.image_processor(self.pictures(media), return_tensors="pt")
        return {name: found[name] for name in ("pixel_values", "image_sizes")}

    def tower_inputs(self, inputs: Mapping[str, Tensor]) -> TowerInputs:
        side, pixels = self.side, list[Tensor]()
        shown_media: list[tuple[str, int, dict[str, Any]]] = []
        for size, own in zip(inputs["image_sizes"].tolist(), inputs["pixel_values"], strict=True):
            grid = crop_grid(size, self.model.config)
            shown = shown_box(size, grid, side)
            parts = [Box(0, 0, side, side), *(shown.within(box) for box in crop_boxes(grid, side))]
            cut = {"grid": list(grid), "parts": [part.values for part in parts]}
            layout = {"view": WHOLE, "shown": shown.values, SUB_CROPS: cut}
            shown_media.append((IMAGE, len(parts), layout))
            pixels.append(own[: len(parts)])
        seen = [(self.model.model.vision_tower, torch.cat(pixels))]
        chosen = {name: value for name, value in self.options.items() if value is not None}
        return TowerInputs(seen, numbered(shown_media), self.most_crops, chosen)

    def beside_crops(self) -> dict[str, Tensor]:
        return {"newline": self.model.model.image_newline.detach()}

    @torch.no_grad()
    def enter(self, crops: Sequence[Crop], layout: Mapping[str, Any]) -> Entering:
        tokens = self.project(torch.cat([crop.tokens for crop in crops]))
        newline = self.model.model.image_newline.to(tokens)
        source = self._source(crops, layout).to(tokens.device)
        found = torch.where(source[:, None] < 0, newline, tokens[source])
        return Entering(found, source=source)

    def _source(self, crops: Sequence[Crop], layout: Mapping[str, Any]) -> Tensor:
        """The place among the crops' tokens of each that enters, -1 for newline embeddings."""
        index = torch.cat([crop.index for crop in crops]).cpu()
        places = torch.arange(len(index)).masked_fill(index <= NEWLINE, -1)
        newline = places.new_full((1,), -1)
        base = len(crops[0].index)
        boxes = crop_boxes(layout[SUB_CROPS]["grid"], self.side)
        cells = map_cells(crops[1:], boxes)
        shown = Box(*layout["shown"])
        if self._is_whole(crops, layout):
            high = shown.holds(cells)
            first = places[: int((crops[0].index >= 0).sum())]
            rows = range(shown.top, shown.bottom)
            map_rows = in_rows(places[base:][high][:, None], cells[high], newline, rows)
            return torch.cat([first, map_rows[:, 0]])
        given = [crop.place for crop in crops if crop.place is not None]
        if not given:
            return places
        order = torch.cat(given).argsort().cpu()
        if self.options["newline"] != ROWS:
            return places[order]
        lines = torch.cat([cells.new_full((base,), -1), cells[:, 0]])
        return with_newlines(places[order][:, None], lines[order], newline)[:, 0]

    def _is_whole(self, crops: Sequence[Crop], layout: Mapping[str, Any]) -> bool:
        """Whether all patches that show the image are there in raster order, and nothing merged.

        Newline embeddings are then all there, or none of them could be chosen.
        """
        shown, lines = Box(*layout["shown"]), 0
        for crop, values in zip(crops, layout[SUB_CROPS]["parts"], strict=True):
            index, patches = crop.index.cpu(), Box(*values).patches(self.side)
            lines += int((index <= NEWLINE).sum())
            if bool((index == -1).any()) or not torch.equal(
                index[torch.isin(index, patches)], patches
            ):
                return False
        return lines in (0, shown.bottom - shown.top)
