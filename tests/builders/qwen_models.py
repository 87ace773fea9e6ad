"""Tiny Qwen2-VL, Qwen2.5-VL and Qwen3-VL models of the real classes, and how to ask them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from builders.tiny_llava import WORDS
from prunesid.images.media import Clip
from prunesid.images.medium import IMAGE, VIDEO

QUESTION = "is there a red circle ?"
SIZES = [(56, 56), (84, 140), (230, 90), (300, 310), (20, 20)]
SYSTEM = "You are a helpful assistant."
SPECIAL = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>",
    "<|image_pad|>", "<|video_pad|>",
]  # fmt: skip
PADS = {"image": "<|image_pad|>", "video": "<|video_pad|>"}
TEMPLATE = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\n" + SYSTEM + "<|im_end|>\n{% endif %}"
    "<|im_start|>{{ message['role'] }}\n{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def save_tiny_qwen(folder: Path, family: str, *, sharpness: float = 20.0) -> None:
    """Random weights of `family` (such as "qwen2_vl"): 4 vision blocks, 3 of the language model.

    Images have 4 to 30 merged tokens. Windows of Qwen2.5-VL hold 2 x 2 merged tokens; its blocks 1
    and 3 attend to the whole image. What blocks 0 and 2 of Qwen3-VL's tower leave is added after
    its first two language blocks.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        AutoModelForImageTextToText,
        PreTrainedTokenizerFast,
        Qwen2_5_VLConfig,
        Qwen2VLConfig,
        Qwen3VLConfig,
    )
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    words = [*SPECIAL, *WORDS, "system", "user", "assistant", *SYSTEM.split()]
    if family == "qwen3_vl":
        words += ["seconds>", *(f"<{tenth / 10:.1f}" for tenth in range(80))]
    vocabulary = {word: number for number, word in enumerate(dict.fromkeys(words))}
    whole = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    whole.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=whole,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        unk_token="<unk>",
        additional_special_tokens=SPECIAL,
        chat_template=TEMPLATE,
        padding_side="left",
    )
    tower = {"depth": 4, "num_heads": 2, "initializer_range": 0.02}
    if family == "qwen2_vl":
        tower |= {"embed_dim": 32, "hidden_size": 48, "mlp_ratio": 2}
    elif family == "qwen3_vl":
        # Patches as large as in the others, so that their images have as many tokens.
        tower |= {
            "hidden_size": 32, "out_hidden_size": 48, "intermediate_size": 48, "patch_size": 14,
            "num_position_embeddings": 64, "deepstack_visual_indexes": [0, 2],
        }  # fmt: skip
    else:
        tower |= {
            "hidden_size": 32,
            "out_hidden_size": 48,
            "intermediate_size": 48,
            "window_size": 56,
            "fullatt_block_indexes": [1, 3],
        }
    configs = {
        "qwen2_vl": Qwen2VLConfig,
        "qwen2_5_vl": Qwen2_5_VLConfig,
        "qwen3_vl": Qwen3VLConfig,
    }
    config = configs[family](
        vision_config=tower,
        text_config={
            "hidden_size": 48,
            "intermediate_size": 64,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "vocab_size": len(vocabulary),
            "max_position_embeddings": 512,
            "bos_token_id": None,
            **({"head_dim": 12} if family == "qwen3_vl" else {}),
            "eos_token_id": vocabulary["<|im_end|>"],
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e4,
                "mrope_section": [2, 2, 2],
            },
        },
        image_token_id=vocabulary["<|image_pad|>"],
        video_token_id=vocabulary["<|video_pad|>"],
        vision_start_token_id=vocabulary["<|vision_start|>"],
        vision_end_token_id=vocabulary["<|vision_end|>"],
    )
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(config).eval()
    for parameter in model.parameters():
        # The default start is so small that the image hardly reaches the answer.
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    tower = model.model.visual
    if family == "qwen3_vl":
        for merger in (tower.merger, *tower.deepstack_merger_list):
            merger.linear_fc2.weight.data *= 4
    else:
        tower.merger.mlp[2].weight.data *= 4
    model.lm_head.weight.data *= sharpness
    # Makes short answers common.
    model.lm_head.weight.data[vocabulary["<|im_end|>"]] *= 2
    model.generation_config.eos_token_id = [vocabulary["<|im_end|>"], vocabulary["<|endoftext|>"]]
    model.generation_config.pad_token_id = vocabulary["<|endoftext|>"]
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    pixels = {"shortest_edge": 4 * 28 * 28, "longest_edge": 30 * 28 * 28}
    Qwen2VLImageProcessorPil(size=pixels).save_pretrained(folder)
    path = folder / "preprocessor_config.json"
    settings = json.loads(path.read_text())
    # As published checkpoints have it.
    settings |= {"image_processor_type": "Qwen2VLImageProcessor"}
    path.write_text(json.dumps(settings))
    if family == "qwen3_vl":
        # Of whole clips, so that those of 8 frames have 15 to 120 merged tokens.
        video = settings | {
            "video_processor_type": "Qwen3VLVideoProcessor",
            "size": {"shortest_edge": 30 * 28 * 28, "longest_edge": 240 * 28 * 28},
        }
        (folder / "video_preprocessor_config.json").write_text(json.dumps(video))


def picture(height: int, width: int, seed: int = 0):
    """An RGB image of a colored block over noise."""
    from PIL import Image

    rng = np.random.default_rng([seed, height, width])
    pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    pixels[height // 4 : height // 2, width // 3 :] = rng.integers(0, 256, 3)
    return Image.fromarray(pixels)


def clip(frames: int, height: int = 84, width: int = 112, seed: int = 0) -> Clip:
    """Frames of noise, four times as many in the video, at 8 frames per second."""
    pixels = np.stack(
        [np.asarray(picture(height, width, seed + number)) for number in range(frames)]
    )
    return Clip(pixels, tuple(range(0, 4 * frames, 4)), 4 * frames, 8.0)


def shown():
    """Names of visual inputs, and their media."""
    return {
        **{f"image {size}": [picture(*size)] for size in SIZES},
        "two images": [picture(84, 140, 1), picture(56, 112, 2)],
        "clip": [clip(5)],
        "clip of one frame": [clip(1, 60, 80)],
        "clip of many frames": [clip(12, 56, 56)],
        "clip, image and clip": [clip(4), picture(84, 112, 3), clip(2, 56, 90, 4)],
    }


def kinds_of(media):
    return [IMAGE if hasattr(medium, "convert") else VIDEO for medium in media]


def whole_prompt(tokenizer, merge_size: int, kinds, question: str, inputs) -> dict:
    """The unmodified model's inputs for a question on media of these kinds, encoded as `inputs`.

    Where there are `video_seconds` every temporal patch of a clip stands by itself, after its time.
    """
    waiting = {
        "image": iter(inputs.get("image_grid_thw", ())),
        "video": iter(inputs.get("video_grid_thw", ())),
    }
    visual, times = "", iter(inputs.get("video_seconds", torch.zeros(0)).tolist())
    for kind in kinds:
        grid = next(waiting[kind])
        count = int(grid.prod()) // merge_size**2
        if kind == VIDEO and "video_seconds" in inputs:
            frames = int(grid[0])
            for _ in range(frames):
                visual += f"<{next(times):.1f} seconds><|vision_start|>"
                visual += f"{PADS[kind] * (count // frames)}<|vision_end|>"
            continue
        visual += f"<|vision_start|>{PADS[kind] * count}<|vision_end|>"
    text = (
        f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n{visual}{question}<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    types = torch.zeros_like(ids)
    for number, pad in enumerate(PADS.values(), start=1):
        types[ids == tokenizer.convert_tokens_to_ids(pad)] = number
    passed = {
        name: value
        for name, value in inputs.items()
        if name not in ("media_types", "video_seconds")
    }
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "mm_token_type_ids": types,
        **passed,
    }


def asked(adapter, media):
    """The unmodified model's inputs for QUESTION on the media."""
    return whole_prompt(
        adapter.processor.tokenizer,
        adapter.merge_size,
        kinds_of(media),
        QUESTION,
        adapter.preprocess(media),
    )
