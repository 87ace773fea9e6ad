"""Pocket-Qwen2-VL's architecture, start values and processor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers.utils import PROCESSOR_NAME

from prunesid.families.inputs.processors import Parts
from prunesid.pocket import WEIGHTS
from prunesid.pocket.model import CHAT_TEMPLATE, MEAN, PATCH, STD, build_tokenizer
from prunesid.pocket.vocabulary import qwen_words

if TYPE_CHECKING:
    from transformers import Qwen2VLForConditionalGeneration

LONGEST = 4096
# Blocks of Pocket-LLaVA's tower that this one starts from; those after its features are not used.
BLOCKS = (0, 1, 2, 3, 4, 6, 7, 8, 9, 10)
MERGE = 2
# Time, row and column take turns at the rotary frequencies. In three sections, as in Qwen2-VL with
# its wider heads, columns would have frequencies too low for images of some twenty columns.
SECTIONS = [1] * 24
MEDIA = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
_TEMPLATE = CHAT_TEMPLATE.replace(
    "{% if item['type'] == 'image' %}<image>\n{% endif %}",
    "{% if item['type'] != 'text' %}"
    "<|vision_start|><|{{ item['type'] }}_pad|><|vision_end|>{% endif %}",
)


def build_model(start: Path = WEIGHTS, seed: int = 0) -> Qwen2VLForConditionalGeneration:
    """The model before its training (fp32), from the parts of `start` that fit.

    start  a LLaVA-1.5 model's folder, by default Pocket-LLaVA's weights
    """
    from transformers import (
        LlavaForConditionalGeneration,
        Qwen2VLConfig,
        Qwen2VLForConditionalGeneration,
    )

    old = LlavaForConditionalGeneration.from_pretrained(start, dtype=torch.float32)
    vision: Any = old.config.vision_config
    text: Any = old.config.text_config
    vocabulary = qwen_words()
    ids = {name: vocabulary.index(name) for name in (*MEDIA, "<pad>", "<s>", "</s>")}
    named: dict[str, Any] = {
        "pad_token_id": ids["<pad>"], "bos_token_id": ids["<s>"], "eos_token_id": ids["</s>"],
    }  # fmt: skip
    config = Qwen2VLConfig(
        vision_config={
            "depth": len(BLOCKS), "embed_dim": vision.hidden_size, "patch_size": PATCH,
            "num_heads": vision.num_attention_heads, "hidden_act": vision.hidden_act,
            "mlp_ratio": vision.intermediate_size // vision.hidden_size,
            "hidden_size": text.hidden_size, "spatial_merge_size": MERGE,
        },
        text_config={
            "vocab_size": len(vocabulary), "hidden_size": text.hidden_size,
            "intermediate_size": text.intermediate_size,
            "num_hidden_layers": text.num_hidden_layers,
            "num_attention_heads": text.num_attention_heads,
            "num_key_value_heads": text.num_key_value_heads,
            # Stated, so that no sizes are left for transformers' defaults (`declared.geometry`).
            "head_dim": text.hidden_size // text.num_attention_heads,
            "max_position_embeddings": LONGEST, "rms_norm_eps": text.rms_norm_eps,
            "rope_parameters": text.rope_parameters | {"mrope_section": SECTIONS},
            "tie_word_embeddings": True, **named,
        },
        image_token_id=ids["<|image_pad|>"], video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"], vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True, **named,
    )  # fmt: skip
    torch.manual_seed(seed)
    model = Qwen2VLForConditionalGeneration(config)
    for name, value in named.items():
        setattr(model.generation_config, name, value)
    _start_language(model.model.language_model, old.model.language_model)
    _start_tower(model.model.visual, old.model.vision_tower)
    _start_merger(model.model.visual.merger, old.model.multi_modal_projector)
    model.tie_weights()
    return model


@torch.no_grad()
def _start_language(language: Any, old: Any) -> None:
    """Positions of text are the same three times over, so M-RoPE has it as RoPE does."""
    state = language.state_dict()
    for name, value in old.state_dict().items():
        if name == "embed_tokens.weight":
            state[name].normal_(0, 0.15)
            state[name][: len(value)] = value
        else:
            state[name].copy_(value)
    for name, value in state.items():
        if name.endswith(".bias"):
            value.zero_()


@torch.no_grad()
def _start_tower(tower: Any, old: Any) -> None:
    """The blocks; what normalizes the patches before them is near a constant for each channel."""
    weight = old.embeddings.patch_embedding.weight
    weight = weight - weight.mean(0)
    norm = old.pre_layrnorm.weight[:, None, None, None]
    frames = tower.patch_embed.proj.weight.shape[2]
    tower.patch_embed.proj.weight.copy_((weight * norm / frames)[:, :, None])
    for block, number in zip(tower.blocks, BLOCKS, strict=True):
        layer = old.encoder.layers[number]
        attention = layer.self_attn
        parts = (attention.q_proj, attention.k_proj, attention.v_proj)
        block.attn.qkv.weight.copy_(torch.cat([part.weight for part in parts]))
        block.attn.qkv.bias.copy_(torch.cat([part.bias for part in parts]))
        for own, part in (
            (block.attn.proj, attention.out_proj), (block.mlp.fc1, layer.mlp.fc1),
            (block.mlp.fc2, layer.mlp.fc2), (block.norm1, layer.layer_norm1),
            (block.norm2, layer.layer_norm2),
        ):  # fmt: skip
            own.load_state_dict(part.state_dict())


@torch.no_grad()
def _start_merger(merger: Any, old: Any) -> None:
    """Some neurons project the mean of the patches as `old` does a patch; the others are new."""
    first, _, last = merger.mlp
    for layer in (first, last):
        layer.reset_parameters()
    neurons = old.linear_1.out_features
    parts = MERGE * MERGE
    first.weight[:neurons] = (old.linear_1.weight / parts).repeat(1, parts)
    first.bias[:neurons] = old.linear_1.bias
    last.weight[:, :neurons] = old.linear_2.weight
    last.bias.copy_(old.linear_2.bias)


class Processor(Parts):
    """The parts of transformers' `Qwen2VLProcessor`, which itself needs torchvision."""

    def save_pretrained(self, folder: Path) -> None:
        """Write the files that transformers' processor reads, and those of the tokenizer."""
        pixels = self.image_processor.to_dict()
        del pixels["image_processor_type"]
        settings = {
            "processor_class": "Qwen2VLProcessor",
            "image_processor": pixels | {"image_processor_type": "Qwen2VLImageProcessor"},
            "video_processor": pixels | {"video_processor_type": "Qwen2VLVideoProcessor"},
        }
        self.tokenizer.save_pretrained(folder)
        text = json.dumps(settings, indent=2, sort_keys=True)
        (folder / PROCESSOR_NAME).write_text(f"{text}\n")


def build_processor() -> Processor:
    """Images at their own size up to 1,024 merged tokens, Pocket-LLaVA's words with more."""
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    token = (MERGE * PATCH) ** 2
    image_processor = Qwen2VLImageProcessorPil(
        size={"shortest_edge": 4 * token, "longest_edge": 1024 * token},
        patch_size=PATCH, merge_size=MERGE, image_mean=[MEAN] * 3, image_std=[STD] * 3,
    )  # fmt: skip
    tokenizer = build_tokenizer(LONGEST, qwen_words(), MEDIA)
    tokenizer.chat_template = _TEMPLATE
    return Processor(tokenizer, image_processor, _TEMPLATE)
