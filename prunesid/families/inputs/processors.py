"""Processors in parts: transformers' own of families that take clips need torchvision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoImageProcessor, AutoTokenizer

# What a checkpoint's image and video processors may do differently with the pixels of a frame.
PIXEL_SETTINGS = (
    "do_resize", "resample", "do_rescale", "rescale_factor", "do_normalize", "image_mean",
    "image_std",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Parts:
    """What the adapters need of transformers' processor, under the same names."""

    tokenizer: Any
    image_processor: Any
    chat_template: str | None

    def apply_chat_template(self, conversation: Any, **given: Any) -> Any:
        return self.tokenizer.apply_chat_template(
            conversation, **{"chat_template": self.chat_template, **given}
        )


@dataclass(frozen=True, eq=False)
class VideoParts(Parts):
    """`video_processor` holds the settings of the video processor."""

    video_processor: Mapping[str, Any]


def load_parts(path: str | Path) -> Parts:
    """From a folder or a hub id, from the files that transformers' own processor reads."""
    from transformers.processing_utils import ProcessorMixin

    tokenizer = AutoTokenizer.from_pretrained(path)
    template = ProcessorMixin.get_processor_dict(path)[0].get("chat_template")
    if isinstance(template, Mapping):
        template = template["default"]
    return Parts(
        tokenizer, AutoImageProcessor.from_pretrained(path), template or tokenizer.chat_template
    )


def load_video_parts(path: str | Path) -> VideoParts:
    """As `load_parts`, with the settings for clips."""
    from transformers.video_processing_utils import BaseVideoProcessor

    parts = load_parts(path)
    video = BaseVideoProcessor.get_video_processor_dict(path)[0]
    return VideoParts(parts.tokenizer, parts.image_processor, parts.chat_template, video)


def video_settings(processor: Any) -> Mapping[str, Any]:
    """Of `VideoParts` or of transformers' own processor."""
    video = processor.video_processor
    return video if isinstance(video, Mapping) else video.to_dict()


def chosen(settings: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """The settings of these names that are set."""
    return {name: settings[name] for name in names if settings.get(name) is not None}
