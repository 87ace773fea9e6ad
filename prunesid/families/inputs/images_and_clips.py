"""Batches of images and clips: told apart for the processors, and put in order again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import torch
from torch import Tensor

from prunesid.images.medium import Medium

if TYPE_CHECKING:
    from PIL.Image import Image

    from prunesid.images.media import Clip

Each = TypeVar("Each")
Media: TypeAlias = "Sequence[Image | Clip]"

# mm_token_type_ids of transformers' processors has the same numbers.
IMAGE_TYPE, CLIP_TYPE = 1, 2


def split(media: Media) -> tuple[list[Image], list[Clip]]:
    """The images, and the clips."""
    pictures: list[Any] = [medium for medium in media if hasattr(medium, "convert")]
    clips: list[Any] = [medium for medium in media if not hasattr(medium, "convert")]
    return pictures, clips


def types_of(media: Media) -> dict[str, Tensor]:
    """`media_types` (M,), 1 for images and 2 for clips; nothing where all are of one kind."""
    types = [IMAGE_TYPE if hasattr(medium, "convert") else CLIP_TYPE for medium in media]
    return {"media_types": torch.tensor(types)} if len(set(types)) > 1 else {}


def in_order(
    inputs: Mapping[str, Any], images: Sequence[Each], clips: Sequence[Each]
) -> list[Each]:
    """One value per image and per clip -> those of all media of a batch, in its order."""
    if "media_types" not in inputs:
        return [*images, *clips]
    waiting = {IMAGE_TYPE: iter(images), CLIP_TYPE: iter(clips)}
    return [next(waiting[number]) for number in inputs["media_types"].tolist()]


def same_length(clips: Sequence[Clip]) -> int:
    """The number of frames of clips; ValueError if they differ in it."""
    counts = {len(clip.frames) for clip in clips}
    if len(counts) > 1:
        raise ValueError(f"clips of one batch have one number of frames, not {sorted(counts)}")
    return counts.pop()


def numbered(shown: Iterable[tuple[str, int, Mapping[str, Any]]]) -> list[Medium]:
    """(kind, number of rows, layout) of media -> the media, which number their rows through."""
    media: list[Medium] = []
    first = 0
    for kind, rows, layout in shown:
        media.append(Medium(kind, tuple(range(first, first + rows)), layout))
        first += rows
    return media
