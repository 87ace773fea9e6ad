"""Video-LLaVA (transformers' `VideoLlavaForConditionalGeneration`): images, short clips.

transformers keeps the CLS token of every frame: 257 tokens, 2056 for 8 frames, where the paper
counts 2048. A clip of which every patch is kept enters so; otherwise, by the option:

frame_cls  "drop": no CLS, so that 136 tokens are 8 x 17 patches; "keep": CLS stands before the
           patches of its frame and takes one of its places, 8 x (CLS and 16 patches)

scope      "frame": a budget is shared evenly by the frames; "clip": a method chooses among the
           patches of all frames together, which enter in the order of their frames

Images enter without CLS, as in the unmodified model. Where a method acts inside the encoder, CLS is
that of its pass. Images, frames and questions are prepared by the options:

aspect         of images, as in `llava`; of frames always the middle square
frame_resize   "bilinear": normalized frames are scaled bilinearly without antialiasing, as the
               authors do; "processor": by transformers' image processor. The authors also mirror
               every second clip by chance, in evaluation too, which is left out
conv_template  as in `llava`; "llava_v1", with which the authors ask about videos, or "vicuna_v1",
               with which they ask about images
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from prunesid.core.crops import BY_CLIP, BY_FRAME, DROP, FRAME_CLS, FRAMES, KEEP, SCOPE
from prunesid.core.parameters import Param
from prunesid.families import register
from prunesid.families.adapter import Crop, Entering
from prunesid.families.base import one_row_each
from prunesid.families.inputs.conversations import LLAVA_V1, VICUNA_V1, conv_template
from prunesid.families.inputs.images_and_clips import (
    Media,
    in_order,
    numbered,
    same_length,
    split,
    types_of,
)
from prunesid.families.inputs.processors import load_parts
from prunesid.families.llava import ASPECT, Llava
from prunesid.families.towers.planned_crops import TowerInputs
from prunesid.images.medium import ALWAYS, CENTER, CLS, IMAGE, VIDEO, WHEN_WHOLE

if TYPE_CHECKING:
    from prunesid.images.media import Clip

BILINEAR, PROCESSOR = "bilinear", "processor"


@register("video_llava")
class VideoLlava(Llava):
    """Adapter; see `prunesid.families.base.Adapter` for shapes. A clip's frames are crops."""

    OPTIONS: ClassVar[Mapping[str, Param]] = {
        FRAME_CLS: Param(DROP, str, FRAMES[FRAME_CLS]),
        SCOPE: Param(BY_FRAME, str, FRAMES[SCOPE]),
        "aspect": ASPECT,
        "frame_resize": Param(BILINEAR, str, (BILINEAR, PROCESSOR)),
        "conv_template": conv_template(LLAVA_V1, VICUNA_V1),
    }
    # The form that the checkpoint's page gives, for a processor without a template.
    CHAT_TEMPLATE: ClassVar[str] = (
        "{% for message in messages %}{% if message['role'] == 'user' %}USER: "
        "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }} "
        "{% else %}<{{ part['type'] }}>\n{% endif %}{% endfor %}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
    )

    load_processor = staticmethod(load_parts)

    def preprocess(self, media: Media) -> dict[str, Tensor]:
        """`pixel_values` (I, 3, H, W) of images, `pixel_values_videos` (V, F, 3, H, W) of clips.

        Where there are both, `media_types` (M,) says which are images (1) and clips (2). ValueError
        where clips differ in their number of frames.
        """
        pictures, clips = split(media)
        found = types_of(media)
        if pictures:
            found["pixel_values"] = self._pixels(self.pictures(pictures))
        if clips:
            frames = same_length(clips)
            pixels = torch.cat([self._frames(clip) for clip in clips])
            found["pixel_values_videos"] = pixels.unflatten(0, (len(clips), frames))
        return found

    def _frames(self, clip: Clip) -> Tensor:
        """(F, 3, H, W) of a clip."""
        if self.options["frame_resize"] == PROCESSOR:
            return self._pixels([np.asarray(frame) for frame in clip.frames])
        side = self.model.config.vision_config.image_size
        settings = self.processor.image_processor
        return scaled_frames(clip, side, settings.image_mean, settings.image_std)

    def _pixels(self, pictures: Sequence[Any]) -> Tensor:
        found = self.processor.image_processor(
            list(pictures), return_tensors="pt", return_legacy_image_output=False
        )
        return found["pixel_values"]

    def tower_inputs(self, inputs: Mapping[str, Tensor]) -> TowerInputs:
        seen: list[tuple[Any, Tensor]] = []
        images: list[tuple[str, int, dict[str, Any]]] = []
        clips: list[tuple[str, int, dict[str, Any]]] = []
        # The older of two names that transformers' processor gives the images.
        pixels = inputs.get("pixel_values", inputs.get("pixel_values_images"))
        if pixels is not None:
            seen.append((self.model.model.image_tower, pixels))
            images = [(IMAGE, 1, {"view": self.view})] * len(pixels)
        pixels = inputs.get("pixel_values_videos")
        if pixels is not None:
            seen.append((self.model.model.video_tower, pixels.flatten(0, 1)))
            when = ALWAYS if self.options[FRAME_CLS] == KEEP else WHEN_WHOLE
            clips = [(VIDEO, pixels.shape[1], {"view": CENTER, CLS: when})] * len(pixels)
        if not seen:
            raise ValueError("inputs hold neither images nor clips")
        media = numbered([*images, *clips])
        shown = in_order(inputs, media[: len(images)], media[len(images) :])
        together = self.options[SCOPE] == BY_CLIP
        return TowerInputs(seen, shown, crops={SCOPE: BY_CLIP} if together else {})

    def enter(self, crops: Sequence[Crop], layout: Mapping[str, Any]) -> Entering:
        # At once, as the model does: products of other shapes differ in their last bits.
        return Entering(self.project(torch.cat([crop.tokens for crop in crops])))

    def encoder_outputs(self, media: Mapping[str, Sequence[Tensor]]) -> dict[str, Any]:
        return {kind: one_row_each(own) for kind, own in media.items()}


def scaled_frames(clip: Clip, side: int, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """(F, 3, side, side): the middle of normalized frames, the shorter side scaled to `side`.

    As LanguageBind's video processor does it by pytorchvideo's ShortSideScale and torchvision's
    CenterCropVideo, roundings included.
    """
    pixels = torch.from_numpy(clip.frames).permute(0, 3, 1, 2).float() / 255
    center, scale = (torch.tensor(values)[:, None, None] for values in (mean, std))
    height, width = pixels.shape[2:]
    shorter = min(height, width)
    size = [
        side if edge == shorter else math.floor(edge / shorter * side) for edge in (height, width)
    ]
    found = interpolate((pixels - center) / scale, size, mode="bilinear", align_corners=False)
    top, left = (round((edge - side) / 2) for edge in size)
    return found[:, :, top : top + side, left : left + side]
