"""Processors in parts: transformers' own need torchvision where a family takes clips."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import AutoImageProcessor, AutoTokenizer

# Settings of pixels in which a checkpoint's image and video processors may differ.
PIXEL_SETTINGS = (
    *("do_resize", "resample", "do_rescale", "rescale_factor"),
    *("do_normalize", "image_mean", "image_std"),
)


@dataclass(frozen=True, eq=False)
class Parts:
    """The attributes of transformers' processor that adapters use.

    video_processor  the settings of the video processor; None if they are not read
    """

    tokenizer: Any
    image_processor: Any
    chat_template: str | None
    video_processor: Mapping[str, Any] | None = None

    def apply_chat_template(self, conversation: Any, **given: Any) -> Any:
        return self.tokenizer.apply_chat_template(
            conversation, **{"chat_template": self.chat_template, **given}
        )


def load_parts(path: str | Path) -> Parts:
    """From a folder or a hub id, from the files that transformers' own processor reads."""
    from transformers.processing_utils import ProcessorMixin

    tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    template = ProcessorMixin.get_processor_dict(path)[0].get("chat_template")
    if isinstance(template, Mapping):
        template = template["default"]
    return Parts(
        tokenizer,
        AutoImageProcessor.from_pretrained(path, trust_remote_code=False),
        template or tokenizer.chat_template,
    )


def load_video_parts(path: str | Path) -> Parts:
    """As `load_parts`, with the settings for clips."""
    from transformers.video_processing_utils import BaseVideoProcessor

    video = BaseVideoProcessor.get_video_processor_dict(path)[0]
    return replace(load_parts(path), video_processor=video)


def video_settings(processor: Any) -> Mapping[str, Any]:
    """The settings for clips, of `load_video_parts` or of transformers' own processor."""
    video = processor.video_processor
    return video if isinstance(video, Mapping) else video.to_dict()


def chosen(settings: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """The settings of these names that are set."""
    return {name: settings[name] for name in names if settings.get(name) is not None}


def frame_pixels(processor: Any, frames: Iterable[Any], side: int, **given: Any) -> Tensor:
    """Frames of clips as the image processor makes them, side x side, set up as for clips."""
    found = processor.image_processor(
        list(frames),
        size={"height": side, "width": side},
        input_data_format="channels_last",
        return_tensors="pt",
        **given,
        **chosen(video_settings(processor), PIXEL_SETTINGS),
    )
    return found["pixel_values"]
