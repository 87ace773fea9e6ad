"""A tiny InternVL3 of the real classes."""

from __future__ import annotations

import json
from pathlib import Path

from builders.tiny_parts import VISION, build, text_config

SIDE = 56
MARKS = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
    "video_token": "<video>",
}
TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'user' %}USER: "
    "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }} "
    "{% elif part['type'] == 'image' %}<IMG_CONTEXT>\n{% else %}<video>\n{% endif %}{% endfor %}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
# (height, width) and the rows and columns of tiles of each.
SHAPES = {
    (56, 56): (1, 1), (60, 150): (1, 3), (150, 60): (3, 1), (150, 150): (2, 2), (56, 112): (1, 2),
    (100, 155): (2, 3), (30, 34): (1, 1), (10, 300): (1, 6),
}  # fmt: skip


def save_tiny_internvl(folder: Path, words: Path) -> None:
    """Tiles of 56 px (16 patches, 4 tokens), up to 6 and a thumbnail.

    The tokenizer is that of the folder `words`, with the marks of images and clips.
    """
    from transformers import AutoTokenizer, InternVLConfig, InternVLForConditionalGeneration
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import (
        GotOcr2ImageProcessorPil,
    )

    tokenizer = AutoTokenizer.from_pretrained(words, extra_special_tokens=MARKS)
    tokenizer.add_tokens(["Frame1:", "Frame2:", "Frame3:"])
    tokenizer.chat_template = TEMPLATE
    vision = {**VISION, "image_size": [SIDE, SIDE], "patch_size": [14, 14], "use_qk_norm": True}
    config = InternVLConfig(
        vision_config=vision,
        text_config=text_config(tokenizer, "qwen2"),
        image_token_id=tokenizer.convert_tokens_to_ids(MARKS["context_image_token"]),
        image_seq_length=4,
    )
    model = build(InternVLForConditionalGeneration, config, tokenizer)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    GotOcr2ImageProcessorPil(size={"height": SIDE, "width": SIDE}, max_patches=6).save_pretrained(
        folder
    )
    path = folder / "preprocessor_config.json"
    settings = json.loads(path.read_text())
    # As published checkpoints have it.
    settings |= {"image_processor_type": "GotOcr2ImageProcessor"}
    path.write_text(json.dumps(settings))
