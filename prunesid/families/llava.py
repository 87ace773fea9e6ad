"""LLaVA (transformers' `LlavaForConditionalGeneration`): LLaVA-1.5 and Pocket-LLaVA.

Only CLIP towers whose CLS token is dropped (`vision_feature_select_strategy="default"`) and a
single feature layer are supported. Images and questions are prepared by the options:

aspect         "pad": an image is padded to a square with the processor's mean color, as the authors
               do in training and evaluation; "crop": the processor takes its middle square, as
               transformers does. A square image is the same in both
conv_template  "vicuna_v1": Vicuna's system prompt first, as the authors do; "checkpoint": the
               checkpoint's own chat template. By default the first where it fits the checkpoint
               (see `conversations.original_name`)
text_tower     folder or hub id of the CLIP model that the tower was taken from, for methods that
               compare patches with a question by CLIP (`towers.clip_text`); without it they do so
               by the language model's embeddings
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from prunesid.core.costs import EncoderShape, Sizes, Transformer
from prunesid.core.needs import Needs
from prunesid.core.parameters import Param
from prunesid.core.record import Kept, VisionRecord
from prunesid.families import register
from prunesid.families.adapter import Crop, Entering
from prunesid.families.base import Adapter
from prunesid.families.inputs.conversations import VICUNA_V1, conv_template
from prunesid.families.inputs.images_and_clips import Media, numbered
from prunesid.families.inputs.square import mean_color, squared
from prunesid.families.towers.clip import feature_block, read_clip
from prunesid.families.towers.clip_pass import Reduced
from prunesid.families.towers.clip_text import OPTION, ClipText
from prunesid.families.towers.planned_crops import TowerInputs, reduce_crops
from prunesid.images.medium import CENTER, IMAGE, PADDED
from prunesid.images.records import ImageRecords
from prunesid.methods.encoder import Plans

PAD, CROP = "pad", "crop"
ASPECT = Param(PAD, str, (PAD, CROP))


@register("llava")
class Llava(Adapter):
    """Adapter; see `prunesid.families.base.Adapter` for the shapes."""

    OPTIONS: ClassVar[Mapping[str, Param]] = {
        "aspect": ASPECT,
        "conv_template": conv_template(VICUNA_V1),
        "text_tower": OPTION,
    }

    def __init__(self, model: Any, processor: Any, **options: object) -> None:
        super().__init__(model, processor, **options)
        config = model.config
        self.num_blocks = config.vision_config.num_hidden_layers
        self.feature_block = feature_block(config, "clip_vision_model", "default")
        side = config.vision_config.image_size // config.vision_config.patch_size
        self.num_tokens = side * side
        self.sizes = Sizes(
            Transformer.decoder(config.text_config),
            Transformer.encoder(config.vision_config),
            encoder_tokens=1 + self.num_tokens,
            encoding=EncoderShape.of(self.num_blocks, self.num_tokens, config.vision_feature_layer),
        )
        named = self.options.get("text_tower")
        if named is not None:
            self.text_tower = ClipText.load(str(named), config.vision_config, self.device)
            self.sizes = replace(self.sizes, text=self.text_tower.sizes)

    @property
    def view(self) -> str:
        """The part of an image that its first crop shows."""
        return PADDED if self.options.get("aspect") == PAD else CENTER

    def pictures(self, media: Media) -> list[Any]:
        found = super().pictures(media)
        if self.options.get("aspect") != PAD:
            return found
        color = mean_color(self.processor.image_processor)
        return [squared(picture, color) for picture in found]

    def preprocess(self, media: Media) -> dict[str, Tensor]:
        found = self.processor.image_processor(self.pictures(media), return_tensors="pt")
        return {"pixel_values": found["pixel_values"]}

    def records(
        self, inputs: Mapping[str, Tensor], needs: Needs, names: Sequence[str] | None
    ) -> ImageRecords:
        batch = self.tower_inputs(inputs)
        record = self.read(batch, inputs, needs)
        others: dict[str, Any] = {"share": batch.share, "crops": batch.crops}
        if needs.projected:
            record = replace(record, projected=self.project(record.features))
            others |= self.beside_crops()
        if needs.joint and record.joint is None:
            record = replace(record, joint=self.join(record.features))
        return ImageRecords.named([record], [range(len(record))], batch.media, names, **others)

    def beside_crops(self) -> dict[str, Tensor]:
        """Projected embeddings beside those of crops, as in `ImageRecords`."""
        return {}

    def join(self, features: Tensor) -> Tensor:
        """The CLIP tower's features of patches -> the record's `joint`."""
        if self.text_tower is None:
            raise ValueError("patches are compared with texts by a text tower, and there is none")
        return self.text_tower.join(self.model.model.vision_tower, features)

    @torch.no_grad()
    def reduced(
        self, inputs: Mapping[str, Tensor], plans: Plans, names: Sequence[str] | None = None
    ) -> tuple[Kept, ImageRecords]:
        return reduce_crops(self.tower_inputs(inputs), plans, names, partial(self.finish, inputs))

    def tower_inputs(self, inputs: Mapping[str, Tensor]) -> TowerInputs:
        """The crops that `encode` reads, before the towers."""
        pixels = inputs["pixel_values"]
        media = numbered((IMAGE, 1, {"view": self.view}) for _ in pixels)
        return TowerInputs([(self.model.model.vision_tower, pixels)], media)

    def finish(self, inputs: Mapping[str, Tensor], left: Reduced, rows: list[int]) -> Tensor:
        """The tower's tokens of the crops `rows` -> tokens (n, N, D) as `encode` has them."""
        return left.kept.tokens

    def read(self, batch: TowerInputs, inputs: Mapping[str, Tensor], needs: Needs) -> VisionRecord:
        """Fields that `encode` reads from the towers; features are those for the projector."""
        crops = batch.share is not None
        return VisionRecord.cat(
            [
                read_clip(tower, own, self.feature_block, needs, crops=crops)
                for tower, own in batch.seen
            ]
        )

    def enter(self, crops: Sequence[Crop], layout: Mapping[str, Any]) -> Entering:
        (crop,) = crops
        return Entering(self.project(crop.tokens))
