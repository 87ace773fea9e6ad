"""Tiny LLaVA-NeXT and LLaVA-OneVision of the real classes, and images of many shapes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from builders.tiny_parts import VISION, build, clip_vision, text_config

# (height, width): square, wide, tall, of other roundings, and too narrow for a row or column of
# patches of its own.
SIZES = (
    (100, 100), (60, 150), (150, 60), (56, 56), (41, 130), (111, 87), (30, 34), (77, 200),
    (10, 300), (300, 10),
)  # fmt: skip
TURNS = ((1, 2), (2, 1), (2, 2), (3, 1), (1, 3))
TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'user' %}USER: "
    "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }} "
    "{% else %}<{{ part['type'] }}>\n{% endif %}{% endfor %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


def pictures(sizes: Any = SIZES, *, seed: int = 0) -> list:
    """RGB images of noise over a gradient, one for every (height, width)."""
    from PIL import Image

    rng = np.random.default_rng(seed)
    found = []
    for height, width in sizes:
        slope = np.linspace(0, 1, height)[:, None, None] * rng.integers(0, 160, 3)
        noise = rng.integers(0, 96, (height, width, 3))
        found.append(Image.fromarray((slope + noise).astype(np.uint8)))
    return found


def save_tiny_llava_next(folder: Path, words: Path) -> None:
    """Crops of 56 px (16 patches), up to 4 sub-crops; the tokenizer is that in `words`."""
    from transformers import (
        AutoTokenizer,
        LlavaNextConfig,
        LlavaNextForConditionalGeneration,
        LlavaNextImageProcessor,
        LlavaNextProcessor,
    )

    tokenizer = AutoTokenizer.from_pretrained(words)
    side = 56
    pinpoints = [[rows * side, columns * side] for rows, columns in TURNS]
    processor = LlavaNextProcessor(
        image_processor=LlavaNextImageProcessor(
            size={"shortest_edge": side},
            crop_size={"height": side, "width": side},
            image_grid_pinpoints=pinpoints,
        ),
        tokenizer=tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    )
    config = LlavaNextConfig(
        vision_config=clip_vision().to_dict(),
        text_config=text_config(tokenizer),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=pinpoints,
    )
    _save(LlavaNextForConditionalGeneration, config, tokenizer, folder)
    processor.save_pretrained(folder)


def _save(cls: Any, config: Any, tokenizer: Any, folder: Path) -> None:
    model = build(cls, config, tokenizer)
    model.model.image_newline.data *= 4
    model.save_pretrained(folder)


# As SIZES; (150, 150) and (140, 160) have maps that are shrunk, (150, 150) the larger one.
ONEVISION_SIZES = (
    (56, 56), (60, 150), (150, 60), (150, 150), (111, 87), (140, 160), (30, 34), (4, 300), (300, 4),
)  # fmt: skip


def save_tiny_onevision(folder: Path, words: Path) -> None:
    """Crops of 56 px (16 patches), up to 9 sub-crops, maps of about 4 crops; "anyres_max_4".

    The tokenizer is that of the folder `words`, with `<video>`.
    """
    import json

    from transformers import (
        AutoTokenizer,
        LlavaOnevisionConfig,
        LlavaOnevisionForConditionalGeneration,
        SiglipVisionConfig,
    )
    from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (
        LlavaOnevisionImageProcessorPil,
    )

    tokenizer = AutoTokenizer.from_pretrained(words)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<video>"]})
    tokenizer.chat_template = TEMPLATE
    side = 56
    pinpoints = [[rows * side, columns * side] for rows in (1, 2, 3) for columns in (1, 2, 3)]
    config = LlavaOnevisionConfig(
        vision_config=SiglipVisionConfig(**VISION, vision_use_head=False).to_dict(),
        text_config=text_config(tokenizer, "qwen2"),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=pinpoints,
        vision_aspect_ratio="anyres_max_4",
    )
    _save(LlavaOnevisionForConditionalGeneration, config, tokenizer, folder)
    tokenizer.save_pretrained(folder)
    LlavaOnevisionImageProcessorPil(
        size={"height": side, "width": side}, image_grid_pinpoints=pinpoints
    ).save_pretrained(folder)
    path = folder / "preprocessor_config.json"
    settings = json.loads(path.read_text())
    # As published checkpoints have it.
    settings |= {"image_processor_type": "LlavaOnevisionImageProcessor"}
    path.write_text(json.dumps(settings))
