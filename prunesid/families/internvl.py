"""InternVL3 (transformers' `InternVLForConditionalGeneration`): images in tiles, and clips.

An image is stretched to the grid of tiles whose aspect ratio is nearest and cut into them, in
raster order; where there are several, a thumbnail of the whole image comes last. Frames of a clip
are a tile each. Every tile is a row, and a budget is shared evenly by the rows of an image or clip:
the inputs that the model's processor makes do not say how tiles lie side by side, so they are not
put together.

A tile's patches (1,024 of 448 pixels) enter as a quarter as many tokens: pixel shuffle puts the
channels of 2 x 2 patches one after another, and the projector follows. Methods choose, by the
option:

choose  "tokens": among the tokens after pixel shuffle, before the projector (`towers.internvit`
        says what a token has of its four patches)
        "patches": among the patches before it. A budget of N tokens keeps 4 N patches, and four of
        them are a token again: those of a cell that is kept whole are as pixel shuffle has them,
        the others are put together cell by cell (`tokens_of`)

A method inside the encoder that only shrinks the image gives every tile fewer patches; others are
refused, as they leave no squares for pixel shuffle.

A clip enters as in the unmodified model: text of the prompt stands between the tokens of its frames
("Frame2:"). That text enters whatever is kept, counts among the tokens that enter, and a method
inside the language model may drop it. An image enters as tokens alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from prunesid.core.needs import NO_NEEDS, Needs
from prunesid.core.parameters import Param
from prunesid.core.record import GRID, Kept, VisionRecord
from prunesid.families import register
from prunesid.families.adapter import Crop, Entering
from prunesid.families.base import Adapter, one_row_each
from prunesid.families.inputs.images_and_clips import CLIP_TYPE, IMAGE_TYPE, Media, numbered
from prunesid.families.inputs.processors import frame_pixels, load_video_parts
from prunesid.families.towers.clip import feature_block
from prunesid.families.towers.internvit import read_internvit, shuffle_record, shuffled, tokens_of
from prunesid.images.medium import IMAGE, JOINED, VIDEO, WHOLE, Medium, grouped
from prunesid.images.records import ImageRecords, all_of
from prunesid.methods.encoder import Plans

TOKENS, PATCHES = "tokens", "patches"
# How many tiles each image or frame has, in the order of the pixels.
TILES = "image_tiles"
MARKS = ("start_image_token", "end_image_token", "video_token")


@register("internvl")
class InternVL(Adapter):
    """Adapter; see `prunesid.families.base.Adapter` for the shapes."""

    OPTIONS: ClassVar[Mapping[str, Param]] = {"choose": Param(TOKENS, str, (TOKENS, PATCHES))}
    taken_as: ClassVar[Mapping[str, str]] = {VIDEO: IMAGE}

    # The cost of its tower has no formula here: tiles may be made smaller.

    def __init__(self, model: Any, processor: Any, **options: object) -> None:
        super().__init__(model, processor, **options)
        config = model.config
        refuse_other_models(config)
        self.feature_block = feature_block(config, "internvl_vision", "default")
        vision = config.vision_config
        self.num_blocks = vision.num_hidden_layers
        self.side = vision.image_size[0] // vision.patch_size[0]
        self.tile_tokens = self.side**2 // 4
        self.most_crops = most_tiles(processor.image_processor)
        tokenizer = processor.tokenizer
        lacking = [name for name in MARKS if getattr(tokenizer, name, None) is None]
        if lacking:
            raise ValueError(f"the tokenizer names no {', '.join(lacking)}")
        self.start, self.end, video = (getattr(tokenizer, name) for name in MARKS)
        self.placeholders[VIDEO] = tokenizer.convert_tokens_to_ids(video)
        self.not_text |= set(tokenizer.convert_tokens_to_ids([self.start, self.end, video]))

    load_processor = staticmethod(load_video_parts)

    def preprocess(self, media: Media) -> dict[str, Tensor]:
        """`pixel_values` (all tiles, 3, S, S), `image_tiles` (M,) and `media_types` (M,)."""
        images, side = self.processor.image_processor, self.model.config.vision_config.image_size[0]
        pixels, types = [], []
        for medium in media:
            if hasattr(medium, "convert"):
                shown = self.pictures([medium])
                found = images(shown, crop_to_patches=True, return_tensors="pt")
                pixels.append(found["pixel_values"])
                types.append(IMAGE_TYPE)
            else:
                frames = frame_pixels(self.processor, medium.frames, side, crop_to_patches=False)
                pixels.append(frames)
                types.append(CLIP_TYPE)
        return {
            "pixel_values": torch.cat(pixels),
            TILES: torch.tensor(list(map(len, pixels))),
            "media_types": torch.tensor(types),
        }

    def of_prompts(
        self, ids: Tensor, visual: Mapping[str, Any]
    ) -> tuple[Tensor, Mapping[str, Any]]:
        """The prompts alone tell which tiles are of one image, and which of one clip.

        Images between "Frame1:", "Frame2:" and so on, as the processor writes it, are one clip.
        """
        ids, found = ids.clone(), list[tuple[int, int]]()
        image, clip = self.placeholders[IMAGE], self.placeholders[VIDEO]
        for row in ids:
            tokens = row.tolist()
            runs = _runs(tokens, image)
            while runs:
                start, end = runs.pop(0)
                tiles, odd = divmod(end - start, self.tile_tokens)
                if odd:
                    raise ValueError(
                        f"an image has a multiple of {self.tile_tokens} placeholders, not "
                        f"{end - start}; make the inputs with the model's own processor"
                    )
                first, kind = self.plain_ids(self._before_frame(1)), IMAGE_TYPE
                if tokens[max(0, start - len(first)) : start] == first:
                    kind = CLIP_TYPE
                    while runs and tokens[end : runs[0][0]] == self._between_frames(tiles + 1):
                        end = runs.pop(0)[1]
                        tiles += 1
                    row[start:end] = clip
                found.append((tiles, kind))
        tiles, types = torch.tensor(found, dtype=torch.int64).view(-1, 2).unbind(1)
        pixels = visual["pixel_values"]
        return ids, {"pixel_values": pixels, TILES: tiles, "media_types": types}

    def records(
        self, inputs: Mapping[str, Tensor], needs: Needs, names: Sequence[str] | None
    ) -> ImageRecords:
        """ValueError if pixels are not those of `image_tiles`."""
        pixels, media = inputs["pixel_values"], self._media(inputs)
        tiles = sum(len(medium.rows) for medium in media)
        if len(pixels) != tiles:
            raise ValueError(f"pixel_values hold {len(pixels)} tiles, the prompts {tiles}")
        record = self._read(pixels, needs)
        if self.options["choose"] == TOKENS:
            record = shuffle_record(record)
        if needs.projected:
            record = replace(record, projected=self._projected(record))
        return ImageRecords.named([record], [range(len(record))], media, names)

    def plans(self, method: str, budget: int, params: Mapping[str, object]) -> Plans:
        found = super().plans(method, budget, params)
        if self.options["choose"] == PATCHES:
            raise ValueError(f"{method} leaves tokens, not patches; it needs choose={TOKENS!r}")
        return found

    @torch.no_grad()
    def reduced(
        self, inputs: Mapping[str, Tensor], plans: Plans, names: Sequence[str] | None = None
    ) -> tuple[Kept, ImageRecords]:
        """Every tile smaller by itself, so that pixel shuffle leaves as many tokens as it gets."""
        media, pixels = self._media(inputs), inputs["pixel_values"]
        whole = (self.side // 2, self.side // 2)
        width = 4 * self.model.config.vision_config.hidden_size
        blank = torch.zeros(len(pixels), width, dtype=self.dtype, device=self.device)
        records = ImageRecords.without_features([whole] * len(pixels), blank, grouped(names, media))
        grids = [plans.grid(whole, own) for own in records.patch_budgets(plans.budget).tolist()]
        patch = self.model.config.vision_config.patch_size[0]
        found: list[Kept] = []
        order: list[int] = []
        for grid in dict.fromkeys(grids):
            rows = [row for row, own in enumerate(grids) if own == grid]
            own = pixels[rows]
            if grid != whole:
                size = (2 * patch * grid[0], 2 * patch * grid[1])
                own = F.interpolate(own.float(), size, mode="bicubic", antialias=True).to(own.dtype)
            kept = all_of(shuffle_record(self._read(own, NO_NEEDS)))
            index = kept.index if grid == whole else torch.full_like(kept.index, -1)
            info = {GRID: torch.tensor([grid] * len(rows), device=index.device)}
            found.append(replace(kept, index=index, info=info))
            order += rows
        return Kept.cat(found).rows(torch.tensor(order).argsort()), records

    def _read(self, pixels: Tensor, needs: Needs) -> VisionRecord:
        normed = self.model.config.vision_feature_layer == -1
        tower = self.model.model.vision_tower
        return read_internvit(tower, pixels, self.feature_block, needs, normed)

    def _media(self, inputs: Mapping[str, Tensor]) -> list[Medium]:
        counts = inputs[TILES].tolist() if TILES in inputs else [1] * len(inputs["pixel_values"])
        images = [IMAGE_TYPE] * len(counts)
        types = inputs["media_types"].tolist() if "media_types" in inputs else images
        joined = {JOINED: 4} if self.options["choose"] == PATCHES else {}
        shared = {"view": WHOLE, **joined}
        return numbered(
            (VIDEO, count, {**shared, "frames": count})
            if number == CLIP_TYPE
            else (IMAGE, count, shared)
            for count, number in zip(counts, types, strict=True)
        )

    def _projected(self, record: VisionRecord) -> Tensor:
        """A patch is compared as the token that its cell makes."""
        if self.options["choose"] == TOKENS:
            return self.project(record.features)
        tokens = self.project(shuffled(record.features))
        half = self.side // 2
        rows = tokens.unflatten(1, (half, half))
        return rows.repeat_interleave(2, 1).repeat_interleave(2, 2).flatten(1, 2)

    @torch.no_grad()
    def enter(self, crops: Sequence[Crop], layout: Mapping[str, Any]) -> Entering:
        tokens = [crop.tokens for crop in crops]
        if JOINED in layout:
            tokens = [tokens_of(crop.tokens, crop.index, self.side) for crop in crops]
        each = self.project(torch.cat(tokens)).split(list(map(len, tokens)))
        if "frames" not in layout:
            return Entering(torch.cat(each))
        parts, places = [each[0]], torch.arange(sum(map(len, each))).split(list(map(len, each)))
        source = [places[0]]
        for number, own in enumerate(each[1:], start=2):
            between = torch.tensor(self._between_frames(number))
            parts += [self.embed(between).to(own), own]
            source += [torch.full_like(between, -1), places[number - 1]]
        return Entering(torch.cat(parts), source=torch.cat(source))

    def _before_frame(self, number: int) -> str:
        return f"Frame{number}: {self.start}"

    def _between_frames(self, number: int) -> list[int]:
        """Token ids between the tokens of a frame and those of the next, of this number from 1."""
        return self.plain_ids(f"{self.end}\n{self._before_frame(number)}")

    def with_marks(self, text: str) -> str:
        image, clip = self._mark(IMAGE), self._mark(VIDEO)
        text = text.replace(image, f"{self.start}{image}{self.end}")
        return text.replace(clip, f"{self._before_frame(1)}{clip}{self.end}")

    def encoder_outputs(self, media: Mapping[str, Sequence[Tensor]]) -> dict[str, Any]:
        return {IMAGE: one_row_each([tokens for each in media.values() for tokens in each])}


def refuse_other_models(config: Any) -> None:
    """ValueError unless tiles and patches are square, and pixel shuffle halves the sides."""
    vision = config.vision_config
    if len({*vision.image_size}) > 1 or len({*vision.patch_size}) > 1:
        raise ValueError("the internvl adapter needs square tiles and patches")
    if config.downsample_ratio != 0.5:
        raise ValueError(f"downsample_ratio must be 0.5, not {config.downsample_ratio}")


def most_tiles(image_processor: Any) -> int:
    """Tiles of an image at the most, the thumbnail included."""
    most = int(image_processor.max_patches)
    return most + (most > 1)


def _runs(tokens: Sequence[int], wanted: int) -> list[tuple[int, int]]:
    """Runs of a token: the first place of each, and the place after its last."""
    found, start = [], 0
    for token, own in groupby(tokens):
        end = start + len(list(own))
        if token == wanted:
            found.append((start, end))
        start = end
    return found
