"""Video-LLaVA (transformers' `VideoLlavaForConditionalGeneration`): images, and clips of a few frames.

transformers keeps the CLS token of every frame: 257 tokens, 2056 for 8 frames, where the paper
counts 2048. A clip of which every patch is kept enters so; otherwise, by the option:

frame_cls  "drop": no CLS, so that 136 tokens are 8 x 17 patches; "keep": CLS stands before the
           patches of its frame and takes one of its places, 8 x (CLS and 16 patches)

Images enter without CLS, as in the unmodified model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPooling

from prunesid.methods import NO_NEEDS, Needs
from prunesid.models import register
from prunesid.models.adapter import Crop, Entering
from prunesid.models.clip import read_clip
from prunesid.models.llava import Llava, only_images
from prunesid.models.processors import Parts, load_parts
from prunesid.parameters import Param
from prunesid.records import (
    ALWAYS,
    CENTER,
    CLS,
    IMAGE,
    VIDEO,
    WHEN_WHOLE,
    Medium,
    Records,
    grouped,
    row_names,
)

if TYPE_CHECKING:
    from PIL.Image import Image

    from prunesid.media import Clip


DROP, KEEP = "drop", "keep"


@register("video_llava")
class VideoLlava(Llava):
    """Adapter; see `prunesid.models.Adapter` for the shapes. A clip's frames are its crops."""

    OPTIONS: ClassVar[Mapping[str, Param]] = {"frame_cls": Param(DROP, str, (DROP, KEEP))}
    # The form that the checkpoint's page gives, for a processor without a template.
    CHAT_TEMPLATE: ClassVar[str] = (
        "{% for message in messages %}{% if message['role'] == 'user' %}USER: "
        "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }} "
        "{% else %}<{{ part['type'] }}>\n{% endif %}{% endfor %}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
    )

    @staticmethod
    def load_processor(path: str | Path) -> Parts:
        return load_parts(path)

    def preprocess(self, media: Sequence[Image | Clip]) -> dict[str, Tensor]:
        """`pixel_values` (M, 3, H, W) of images, or `pixel_values_videos` (M, F, 3, H, W) of clips.

        ValueError where both are mixed, or clips differ in their number of frames.
        """
        clips = [medium for medium in media if not hasattr(medium, "convert")]
        if not clips:
            return {"pixel_values": self._pixels(only_images(media))}
        if len(clips) != len(media):
            raise ValueError("images and clips cannot be encoded at once by this model family")
        counts = {len(clip.frames) for clip in clips}
        if len(counts) > 1:
            raise ValueError(f"clips of one batch have one number of frames, not {sorted(counts)}")
        pixels = self._pixels([np.asarray(frame) for clip in clips for frame in clip.frames])
        return {"pixel_values_videos": pixels.unflatten(0, (len(clips), -1))}

    def _pixels(self, pictures: Sequence[Any]) -> Tensor:
        found = self.processor.image_processor(
            list(pictures), return_tensors="pt", return_legacy_image_output=False
        )
        return found["pixel_values"]

    @torch.no_grad()
    def encode(
        self,
        inputs: Mapping[str, Tensor],
        needs: Needs = NO_NEEDS,
        names: Sequence[str] | None = None,
    ) -> Records:
        clips = inputs.get("pixel_values_videos")
        # The older of two names that transformers' processor gives the images.
        images = inputs.get("pixel_values", inputs.get("pixel_values_images"))
        if clips is not None and images is not None:
            raise ValueError("images and clips cannot be encoded at once by this model family")
        model = self.model.model
        layout: dict[str, Any] = {"view": CENTER}
        if clips is None and images is None:
            raise ValueError("inputs hold neither images nor clips")
        if images is not None:
            record = read_clip(model.image_tower, images, self.feature_block, needs)
            media = [Medium(IMAGE, (row,), layout) for row in range(len(record))]
        elif clips is not None:
            pixels = clips.flatten(0, 1)
            record = read_clip(model.video_tower, pixels, self.feature_block, needs)
            size = clips.shape[1]
            layout[CLS] = ALWAYS if self.options["frame_cls"] == KEEP else WHEN_WHOLE
            media = [
                Medium(VIDEO, tuple(range(first, first + size)), layout)
                for first in range(0, len(record), size)
            ]
        if needs.projected:
            record = replace(record, projected=self.project(record.features))
        found = grouped(names or [str(number) for number in range(len(media))], media)
        if names is not None:
            rows = row_names(found)
            record = replace(record, image_ids=tuple(rows[row] for row in range(len(record))))
        return Records((record,), (tuple(range(len(record))),), found)

    def enter(self, crops: Sequence[Crop], layout: Mapping[str, Any]) -> Entering:
        # At once, as the model does: products of other shapes differ in their last bits.
        return Entering(self.project(torch.cat([crop.tokens for crop in crops])))

    def encoder_outputs(self, media: Mapping[str, Sequence[Tensor]]) -> dict[str, Any]:
        # The model flattens its first two dimensions.
        return {
            kind: BaseModelOutputWithPooling(pooler_output=torch.cat(list(own))[None])
            for kind, own in media.items()
        }
