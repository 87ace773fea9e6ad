"""A tiny Video-LLaVA of the real classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from builders.tiny_parts import build, clip_vision, text_config


def save_tiny_video_llava(folder: Path, words: Path) -> None:
    """56 px, 16 patches a frame; the tokenizer is that of the folder `words`, and has `<video>`."""
    from transformers import (
        AutoTokenizer,
        VideoLlavaConfig,
        VideoLlavaForConditionalGeneration,
    )
    from transformers.models.video_llava.image_processing_video_llava import (
        VideoLlavaImageProcessor,
    )

    tokenizer = AutoTokenizer.from_pretrained(words)
    # As the published checkpoint, it has no template of its own.
    tokenizer.chat_template = None
    tokenizer.add_special_tokens({"additional_special_tokens": ["<video>"]})
    config = VideoLlavaConfig(
        vision_config=clip_vision().to_dict(),
        text_config=text_config(tokenizer),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        image_seq_length=16,
        video_seq_length=8 * 17,
    )
    model = build(VideoLlavaForConditionalGeneration, config, tokenizer)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    side = {"height": 56, "width": 56}
    VideoLlavaImageProcessor(size={"shortest_edge": 56}, crop_size=side).save_pretrained(folder)


def clip(seed: int, frames: int = 8):
    """Frames of noise around a color of their own."""
    from prunesid.images.media import Clip

    rng = np.random.default_rng(seed)
    shade = rng.integers(0, 200, (frames, 1, 1, 3))
    pixels = (shade + rng.integers(0, 56, (frames, 64, 80, 3))).astype(np.uint8)
    return Clip(pixels, tuple(range(frames)), frames, 8.0)
