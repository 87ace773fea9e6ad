"""A tiny Video-LLaVA of the real classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch


def save_tiny_video_llava(folder: Path, words: Path) -> None:
    """56 px, 16 patches a frame; the tokenizer is that of the folder `words`, and has `<video>`."""
    from transformers import (
        AutoTokenizer,
        CLIPVisionConfig,
        LlamaConfig,
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
        vision_config=CLIPVisionConfig(
            hidden_size=32, intermediate_size=48, num_hidden_layers=4, num_attention_heads=2,
            image_size=56, patch_size=14, projection_dim=32,
        ).to_dict(),
        text_config=LlamaConfig(
            hidden_size=48, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4,
            num_key_value_heads=2, vocab_size=len(tokenizer), max_position_embeddings=512,
            bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        ).to_dict(),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        image_seq_length=16, video_seq_length=8 * 17,
    )  # fmt: skip
    torch.manual_seed(0)
    model = VideoLlavaForConditionalGeneration(config).eval()
    for parameter in model.parameters():
        # The default start is so small that the image hardly reaches the answer.
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
    model.model.multi_modal_projector.linear_2.weight.data *= 4
    model.lm_head.weight.data *= 20
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    side = {"height": 56, "width": 56}
    VideoLlavaImageProcessor(size={"shortest_edge": 56}, crop_size=side).save_pretrained(folder)


def clip(seed: int, frames: int = 8):
    """Frames of noise around a color of their own."""
    from prunesid.media import Clip

    rng = np.random.default_rng(seed)
    shade = rng.integers(0, 200, (frames, 1, 1, 3))
    pixels = (shade + rng.integers(0, 56, (frames, 64, 80, 3))).astype(np.uint8)
    return Clip(pixels, tuple(range(frames)), frames, 8.0)
