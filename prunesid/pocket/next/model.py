"""Pocket-LLaVA-NeXT's architecture, start values and processor."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from prunesid.pocket import WEIGHTS
from prunesid.pocket.model import (
    CHAT_TEMPLATE,
    GRID,
    IMAGE_SIZE,
    MEAN,
    PATCH,
    STD,
    build_tokenizer,
)

if TYPE_CHECKING:
    from transformers import LlavaNextForConditionalGeneration, LlavaNextProcessor

# LLaVA-1.6's, (height, width).
PINPOINTS = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
LONGEST = 4096


def build_model(start: Path = WEIGHTS, seed: int = 0) -> LlavaNextForConditionalGeneration:
    """The model before its training (fp32): tower, projector and language model of `start`.

    start  a LLaVA-1.5 model's folder, by default Pocket-LLaVA's weights
    """
    from transformers import (
        LlavaForConditionalGeneration,
        LlavaNextConfig,
        LlavaNextForConditionalGeneration,
    )

    old = LlavaForConditionalGeneration.from_pretrained(start, dtype=torch.float32)
    parts = old.config.to_dict()
    text = parts["text_config"] | {"max_position_embeddings": LONGEST}
    config = LlavaNextConfig(
        vision_config=parts["vision_config"], text_config=text,
        image_token_index=old.config.image_token_index, image_grid_pinpoints=PINPOINTS,
        vision_feature_layer=-2, vision_feature_select_strategy="default",
        image_seq_length=GRID * GRID, tie_word_embeddings=True,
    )  # fmt: skip
    config.pad_token_id = old.config.pad_token_id
    torch.manual_seed(seed)
    model = LlavaNextForConditionalGeneration(config)
    for part in ("vision_tower", "multi_modal_projector", "language_model"):
        getattr(model.model, part).load_state_dict(getattr(old.model, part).state_dict())
    model.generation_config = old.generation_config
    model.tie_weights()
    return model


def build_processor() -> LlavaNextProcessor:
    """Crops of 336 px at PINPOINTS, with Pocket-LLaVA's tokenizer and template."""
    from transformers import LlavaNextImageProcessor, LlavaNextProcessor

    image_processor = LlavaNextImageProcessor(
        size={"shortest_edge": IMAGE_SIZE},
        crop_size={"height": IMAGE_SIZE, "width": IMAGE_SIZE},
        image_grid_pinpoints=PINPOINTS,
        image_mean=[MEAN] * 3,
        image_std=[STD] * 3,
    )
    return LlavaNextProcessor(
        image_processor=image_processor,
        tokenizer=build_tokenizer(LONGEST),
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )
