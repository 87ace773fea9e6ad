"""Images and clips -> the inputs of Qwen's families, with or without torchvision.

transformers' video processor, and with it the families' processor, needs torchvision. The image
processor does not, and it makes the same patches: a clip is its frames' patches, two frames (or
what temporal_patch_size says) put together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from prunesid.families.inputs.images_and_clips import Media, split, types_of
from prunesid.families.inputs.processors import PIXEL_SETTINGS, chosen, video_settings

if TYPE_CHECKING:
    from prunesid.images.media import Clip

# Pixels of a frame where the checkpoint does not say: those of transformers' video processor.
CLIP_SIZE = {"shortest_edge": 128 * 28 * 28, "longest_edge": 768 * 28 * 28}
# Settings in which images and clips of a checkpoint may differ.
SHARED_SETTINGS = (*PIXEL_SETTINGS, "patch_size", "temporal_patch_size", "merge_size")

Sizing = Callable[[Any, Mapping[str, Any], "Clip"], tuple[Sequence[Any], Mapping[str, Any]]]


def by_frame(
    images: Any, settings: Mapping[str, Any], clip: Clip
) -> tuple[Sequence[Any], Mapping[str, Any]]:
    """A clip's frames, and the pixels of each as transformers' video processor limits them."""
    size = limits(settings, CLIP_SIZE)
    if settings.get("cap_pixels_per_frame"):
        # 90 % of the tokens of a whole clip, which its frames share.
        side, frames = images.patch_size * images.merge_size, len(clip.frames)
        total = int(settings.get("max_video_tokens", 128000) * side * side * 0.9)
        share = total * temporal(images, settings) // frames
        least = int(size["shortest_edge"] * 1.05)
        size["longest_edge"] = max(min(size["longest_edge"], share), least)
    return list(clip.frames), {"size": size}


def preprocess(
    processor: Any,
    media: Media,
    *,
    timed: bool = False,
    sizing: Sizing = by_frame,
) -> dict[str, Tensor]:
    """Media -> pixel_values and image_grid_thw, pixel_values_videos and video_grid_thw.

    timed   also second_per_grid_ts, the seconds that a temporal patch of each clip lasts
    sizing  (image processor, settings for clips, clip) -> the clip's frames, and the settings with
            which the image processor takes them

    Where there are both, `media_types` (M,) says which are images (1) and clips (2). Frames are
    taken as they are; the last is repeated where temporal_patch_size does not divide them.
    ValueError on an image whose sides differ by more than a factor of 200.
    """
    pictures, clips = split(media)
    found = types_of(media)
    if pictures:
        images = [picture.convert("RGB") for picture in pictures]
        own = processor.image_processor(images, return_tensors="pt")
        found |= {name: own[name] for name in ("pixel_values", "image_grid_thw")}
    if clips:
        settings = video_settings(processor)
        parts = [_clip(processor.image_processor, settings, clip, sizing) for clip in clips]
        found["pixel_values_videos"] = torch.cat([patches for patches, _ in parts])
        found["video_grid_thw"] = torch.tensor([grid for _, grid in parts])
        if timed:
            length = temporal(processor.image_processor, settings)
            seconds = [length / clip.rate for clip in clips]
            found["second_per_grid_ts"] = torch.tensor(seconds, dtype=torch.float32)
    return found


def temporal(images: Any, settings: Mapping[str, Any]) -> int:
    """Frames of a temporal patch."""
    return settings.get("temporal_patch_size") or images.temporal_patch_size


def _clip(
    images: Any, settings: Mapping[str, Any], clip: Clip, sizing: Sizing
) -> tuple[Tensor, tuple[int, int, int]]:
    """Patches (P, channels * time * height * width) and grid (frames, rows, columns) of a clip."""
    length = temporal(images, settings)
    own, given = sizing(images, settings, clip)
    frames = [*own, *[own[-1]] * (-len(own) % length)]
    shared = {**chosen(settings, SHARED_SETTINGS), **given}
    found = images(frames, input_data_format="channels_last", return_tensors="pt", **shared)
    _, rows, columns = found["image_grid_thw"][0].tolist()
    # As an image, every frame fills its temporal patch by itself.
    single = found["pixel_values"].unflatten(1, (3, length, -1))[:, :, 0]
    paired = single.unflatten(0, (-1, length, rows * columns)).permute(0, 2, 3, 1, 4)
    patches = paired.reshape(-1, found["pixel_values"].shape[1])
    return patches, (len(frames) // length, rows, columns)


def limits(settings: Mapping[str, Any], default: Mapping[str, int]) -> dict[str, int]:
    """Least and most pixels, shortest_edge and longest_edge, as files of either layout say."""
    size = dict(settings.get("size") or default)
    for edge, name in (("shortest_edge", "min_pixels"), ("longest_edge", "max_pixels")):
        if settings.get(name) is not None:
            size[edge] = settings[name]
    return size


def shrink(
    patches: Tensor, grids: Sequence[Sequence[int]], targets: Sequence[Sequence[int]], vision: Any
) -> Tensor:
    """Patches (P, channels * time * height * width) of media -> those of the same media, smaller.

    grids, targets  (M) frames, rows and columns of patches of each medium, before and after
    vision          configuration of the tower

    Resized bicubic, antialiased. A medium whose grid stays is what it was.
    """
    sizes = [frames * rows * columns for frames, rows, columns in grids]
    return torch.cat(
        [
            own if list(grid) == list(target) else _shrunk(own, grid, target, vision)
            for own, grid, target in zip(patches.split(sizes), grids, targets, strict=True)
        ]
    )


def _shrunk(patches: Tensor, grid: Sequence[int], target: Sequence[int], vision: Any) -> Tensor:
    merge, patch, length = vision.spatial_merge_size, vision.patch_size, vision.temporal_patch_size
    frames, rows, columns = grid
    # As the image processor lays patches out: those of a merged token are neighbors.
    apart = patches.float().view(
        frames, rows // merge, columns // merge, merge, merge, -1, length, patch, patch
    )
    pixels = apart.permute(0, 6, 5, 1, 3, 7, 2, 4, 8)
    pixels = pixels.reshape(frames * length, -1, rows * patch, columns * patch)
    _, rows, columns = target
    size = (rows * patch, columns * patch)
    small = F.interpolate(pixels, size, mode="bicubic", antialias=True)
    cells = small.view(
        frames, length, -1, rows // merge, merge, patch, columns // merge, merge, patch
    )
    together = cells.permute(0, 3, 6, 4, 7, 2, 1, 5, 8)
    return together.reshape(frames * rows * columns, patches.shape[1]).to(patches.dtype)
