"""A LLaVA of the real classes, small enough to build in a second, and images for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from builders.tiny_parts import build, clip_vision, text_config

WORDS = [
    "<pad>",
    "<s>",
    "</s>",
    "<unk>",
    "<image>",
    "USER:",
    "ASSISTANT:",
    ".",
    "?",
    "is",
    "are",
    "there",
    "a",
    "the",
    "of",
    "red",
    "green",
    "blue",
    "yellow",
    "circle",
    "square",
    "star",
    "left",
    "right",
    "above",
    "below",
    "how",
    "many",
    "what",
    "color",
    "which",
    "bars",
    "taller",
    "than",
    "yes",
    "no",
    "one",
    "two",
    "three",
    "1",
    "2",
    "3",
    "4",
    "A",
    "B",
    "C",
    "D",
]
TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'user' %}USER: "
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>\n"
    "{% else %}{{ part['text'] }} {% endif %}{% endfor %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


def save_tiny_llava(folder: Path, *, sharpness: float = 20.0) -> None:
    """Random weights: 56 px, patch 14 (16 tokens), 4 vision blocks, 3 language blocks.

    `sharpness` scales the output head, so that no two logits are near a tie.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import (
        CLIPImageProcessor,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
        PreTrainedTokenizerFast,
    )

    vocabulary = {word: number for number, word in enumerate(WORDS)}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", vocabulary["<s>"])]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        extra_special_tokens={"image_token": "<image>"},
        padding_side="left",
    )
    images = CLIPImageProcessor(size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56})
    processor = LlavaProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    )
    config = LlavaConfig(
        vision_config=clip_vision().to_dict(),
        text_config=text_config(tokenizer, positions=256),
        image_token_id=vocabulary["<image>"],
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )
    model = build(LlavaForConditionalGeneration, config, tokenizer, sharpness)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def random_images(count: int, *, seed: int = 0, size: int = 56) -> list:
    """RGB images of colored blocks over noise."""
    from PIL import Image

    rng = np.random.default_rng(seed)
    pictures = []
    for _ in range(count):
        pixels = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
        top, left = rng.integers(0, size // 2, 2)
        pixels[top : top + size // 2, left : left + size // 2] = rng.integers(0, 256, 3)
        pictures.append(Image.fromarray(pixels))
    return pictures
