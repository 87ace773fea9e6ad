"""Pocket-Video-LLaVA's architecture, start values and processor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers.utils import PROCESSOR_NAME

from prunesid.families.inputs.processors import Parts
from prunesid.pocket import WEIGHTS
from prunesid.pocket.model import CHAT_TEMPLATE, GRID, MEAN, PATCH, STD, build_tokenizer
from prunesid.pocket.training.tower import window_positions
from prunesid.pocket.video.clips import MOMENTS, SIDE
from prunesid.pocket.vocabulary import video_words

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import VideoLlavaForConditionalGeneration

FRAME_GRID = SIDE // PATCH
PATCHES = FRAME_GRID**2
LONGEST = 4096
# Blocks of Pocket-LLaVA's tower that this one starts from. The class has a tower for images and one
# for clips; six blocks each weigh together as much as Pocket-LLaVA's twelve.
BLOCKS = (0, 2, 5, 8, 10, 11)
_MEDIA = ("<image>", "<video>")
_TEMPLATE = CHAT_TEMPLATE.replace(
    "{% if item['type'] == 'image' %}<image>\n{% endif %}",
    "{% if item['type'] != 'text' %}<{{ item['type'] }}>\n{% endif %}",
)


def window(count: int) -> Tensor:
    """(count, 1 + PATCHES) rows of Pocket-LLaVA's position table: the middle window of its grid.

    Its tower has learned from windows, and the middle of a frame stays the middle.
    """
    corner = torch.full((count,), (GRID - FRAME_GRID) // 2)
    return window_positions(corner, corner, FRAME_GRID)


def build_model(start: Path = WEIGHTS, seed: int = 0) -> VideoLlavaForConditionalGeneration:
    """The model before its training (fp32), from the parts of `start`.

    start  a LLaVA-1.5 model's folder, by default Pocket-LLaVA's weights
    """
    from transformers import (
        LlavaForConditionalGeneration,
        VideoLlavaConfig,
        VideoLlavaForConditionalGeneration,
    )

    old = LlavaForConditionalGeneration.from_pretrained(start, dtype=torch.float32)
    parts = old.config.to_dict()
    vocabulary = video_words()
    text = {"max_position_embeddings": LONGEST, "vocab_size": len(vocabulary)}
    vision = {"image_size": SIDE, "num_hidden_layers": len(BLOCKS)}
    config = VideoLlavaConfig(
        vision_config=parts["vision_config"] | vision, text_config=parts["text_config"] | text,
        image_token_index=old.config.image_token_index,
        video_token_index=vocabulary.index("<video>"),
        vision_feature_layer=-2, vision_feature_select_strategy="default",
        image_seq_length=PATCHES, video_seq_length=MOMENTS * (1 + PATCHES),
        tie_word_embeddings=True,
    )  # fmt: skip
    config.pad_token_id = old.config.pad_token_id
    torch.manual_seed(seed)
    model = VideoLlavaForConditionalGeneration(config)
    model.model.multi_modal_projector.load_state_dict(old.model.multi_modal_projector.state_dict())
    words = old.model.language_model.embed_tokens.weight
    grown = torch.empty(len(vocabulary), words.shape[1]).normal_(0, 0.15)
    grown[: len(words)] = words.detach()
    language = old.model.language_model.state_dict() | {"embed_tokens.weight": grown}
    model.model.language_model.load_state_dict(language)
    _start_tower(model.model.video_tower, old.model.vision_tower)
    share_tower(model)
    model.generation_config = old.generation_config
    model.tie_weights()
    return model


@torch.no_grad()
def _start_tower(tower: Any, old: Any) -> None:
    state = old.state_dict()
    positions = state["embeddings.position_embedding.weight"][window(1)[0]]
    for name, value in tower.state_dict().items():
        if name == "embeddings.position_embedding.weight":
            value.copy_(positions)
        elif name.startswith("encoder.layers."):
            number, rest = name.removeprefix("encoder.layers.").split(".", 1)
            value.copy_(state[f"encoder.layers.{BLOCKS[int(number)]}.{rest}"])
        else:
            value.copy_(state[name])


def share_tower(model: Any) -> None:
    """Make the tower for images equal to that for clips."""
    model.model.image_tower.load_state_dict(model.model.video_tower.state_dict())


class Processor(Parts):
    """The parts of transformers' `VideoLlavaProcessor`, which itself needs torchvision."""

    def save_pretrained(self, folder: Path) -> None:
        """Write the files that transformers' processor reads, and those of the tokenizer."""
        pixels = self.image_processor.to_dict()
        del pixels["image_processor_type"]
        settings = {
            "processor_class": "VideoLlavaProcessor",
            "image_processor": pixels | {"image_processor_type": "VideoLlavaImageProcessor"},
            "video_processor": pixels | {"video_processor_type": "VideoLlavaVideoProcessor"},
            "patch_size": PATCH,
            "vision_feature_select_strategy": "default",
            "num_additional_image_tokens": 1,
        }
        self.tokenizer.save_pretrained(folder)
        text = json.dumps(settings, indent=2, sort_keys=True)
        (folder / PROCESSOR_NAME).write_text(f"{text}\n")


def build_processor() -> Processor:
    """Frames of SIDE px, Pocket-LLaVA's tokenizer with more words, its template with clips."""
    from transformers import VideoLlavaImageProcessor

    image_processor = VideoLlavaImageProcessor(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE},
        image_mean=[MEAN] * 3, image_std=[STD] * 3,
    )  # fmt: skip
    tokenizer = build_tokenizer(LONGEST, video_words(), _MEDIA)
    tokenizer.chat_template = _TEMPLATE
    return Processor(tokenizer, image_processor, _TEMPLATE)
