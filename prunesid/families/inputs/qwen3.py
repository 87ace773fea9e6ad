"""Images and clips -> the inputs of Qwen3-VL, with or without torchvision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from transformers.models.qwen3_vl.video_processing_qwen3_vl import smart_resize

from prunesid.families.inputs import qwen
from prunesid.families.inputs.images_and_clips import Media, split
from prunesid.families.inputs.processors import video_settings

if TYPE_CHECKING:
    from prunesid.images.media import Clip

# Pixels of a clip where the checkpoint does not say: those of transformers' video processor.
CLIP_SIZE = {"shortest_edge": 128 * 32 * 32, "longest_edge": 768 * 32 * 32}
SECONDS = "video_seconds"


def preprocess(processor: Any, media: Media) -> dict[str, Tensor]:
    """`qwen.preprocess`; beside clips also SECONDS, the time of each of their temporal patches.

    It is float64, clip after clip, and the mean of the first and the last frame's, as in
    transformers' processor. All frames of a clip together have the least and most pixels that its
    settings say; a clip of one frame, which transformers refuses, shows it twice.
    """
    found = qwen.preprocess(processor, media, sizing=together)
    clips = split(media)[1]
    if clips:
        length = qwen.temporal(processor.image_processor, video_settings(processor))
        found[SECONDS] = torch.tensor(
            [time for clip in clips for time in times(clip, length)], dtype=torch.float64
        )
    return found


def times(clip: Clip, length: int) -> list[float]:
    """Seconds from the start of the video at which temporal patches of `length` frames stand."""
    frames = [*clip.times, *[clip.times[-1]] * (-len(clip.times) % length)]
    return [
        (frames[start] + frames[start + length - 1]) / 2 for start in range(0, len(frames), length)
    ]


def together(
    images: Any, settings: Mapping[str, Any], clip: Clip
) -> tuple[Sequence[Any], Mapping[str, Any]]:
    """A clip's frames, scaled to the size that their number leaves them; the processor keeps it."""
    if settings.get("do_resize") is False:
        return list(clip.frames), {}
    length = qwen.temporal(images, settings)
    side = (settings.get("patch_size") or images.patch_size) * (
        settings.get("merge_size") or images.merge_size
    )
    frames = max(len(clip.frames), length)
    size = qwen.limits(settings, CLIP_SIZE)
    if settings.get("cap_pixels_per_frame"):
        most = settings.get("max_video_tokens", 768) * side * side
        share = min(most, size["longest_edge"] // frames)
        size["longest_edge"] = max(share, int(size["shortest_edge"] * 1.05)) * frames
    height, width = smart_resize(
        frames,
        clip.frames.shape[1],
        clip.frames.shape[2],
        temporal_factor=length,
        factor=side,
        min_pixels=size["shortest_edge"],
        max_pixels=size["longest_edge"],
    )
    return [_scaled(frame, height, width, settings) for frame in clip.frames], {"do_resize": False}


def _scaled(frame: Any, height: int, width: int, settings: Mapping[str, Any]) -> Any:
    from PIL import Image

    resample = Image.Resampling(settings.get("resample", Image.Resampling.BICUBIC))
    return np.asarray(Image.fromarray(frame).resize((width, height), resample))
