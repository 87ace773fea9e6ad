"""Pocket-LLaVA's architecture, tokenizer and processor: transformers' classes in small sizes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from prunesid.pocket.vocabulary import words

if TYPE_CHECKING:
    from transformers import (
        LlavaForConditionalGeneration,
        LlavaProcessor,
        PreTrainedModel,
        PreTrainedTokenizerFast,
        ProcessorMixin,
    )

IMAGE_SIZE = 336
PATCH = 14
GRID = IMAGE_SIZE // PATCH
MEAN, STD = 0.5, 0.25
# llava-hf/llava-1.5-7b-hf's template; the word-level tokenizer drops the line break.
CHAT_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'user' %}USER: "
    "{% for item in message['content'] %}{% if item['type'] == 'image' %}<image>\n{% endif %}"
    "{% endfor %}{% for item in message['content'] %}{% if item['type'] == 'text' %}"
    "{{ item['text'] }}{% endif %}{% endfor %} {% else %}ASSISTANT: "
    "{% for item in message['content'] %}{{ item['text'] }}{% endfor %} </s> {% endif %}"
    "{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


def build_model(
    vision_blocks: int = 12, language_blocks: int = 6, seed: int = 0
) -> LlavaForConditionalGeneration:
    """An untrained Pocket-LLaVA (fp32) with the start values that made training fast.

    The tower: width 128, 2 heads, MLP 384; the language model: width 192, 4 heads, MLP 512.
    """
    from transformers import (
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
    )

    vocabulary = words()
    special = {name: vocabulary.index(f"<{name}>") for name in ("pad", "s", "image")}
    end = vocabulary.index("</s>")
    torch.manual_seed(seed)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=128, intermediate_size=384, num_hidden_layers=vision_blocks,
            num_attention_heads=2, image_size=IMAGE_SIZE, patch_size=PATCH, hidden_act="gelu",
            projection_dim=128,
        ),
        text_config=LlamaConfig(
            vocab_size=len(vocabulary), hidden_size=192, intermediate_size=512,
            num_hidden_layers=language_blocks, num_attention_heads=4, num_key_value_heads=4,
            max_position_embeddings=2048, tie_word_embeddings=True,
            pad_token_id=special["pad"], bos_token_id=special["s"], eos_token_id=end,
        ),
        image_token_index=special["image"], vision_feature_layer=-2,
        vision_feature_select_strategy="default", image_seq_length=GRID * GRID,
        tie_word_embeddings=True,
    )  # fmt: skip
    config.pad_token_id = special["pad"]
    model = LlavaForConditionalGeneration(config)
    model.generation_config.pad_token_id = special["pad"]
    model.generation_config.bos_token_id = special["s"]
    model.generation_config.eos_token_id = end
    model.tie_weights()
    _start_values(model)
    return model


def _sine_positions(side: int, width: int) -> torch.Tensor:
    """(1 + side^2, width) positions: zeros for CLS; else half the channels each for row, column."""
    frequency = torch.exp(torch.linspace(0, -6.0, width // 4))
    angle = torch.arange(side)[:, None] * frequency
    axis = torch.cat([angle.sin(), angle.cos()], 1)
    row = axis[:, None].expand(side, side, -1)
    column = axis[None].expand(side, side, -1)
    table = torch.cat([row, column], -1).reshape(side * side, width)
    return torch.cat([torch.zeros(1, width), table])


@torch.no_grad()
def _start_values(model: LlavaForConditionalGeneration) -> None:
    tower = model.model.vision_tower
    width = tower.embeddings.position_embedding.weight.shape[1]
    tower.embeddings.position_embedding.weight.copy_(0.5 * _sine_positions(GRID, width))
    for layer in tower.encoder.layers:
        # Equal query and key projections make attention start out as similarity.
        layer.self_attn.k_proj.weight.copy_(layer.self_attn.q_proj.weight)
        layer.self_attn.out_proj.weight.mul_(0.5)
        layer.mlp.fc2.weight.mul_(0.5)
    language = model.model.language_model
    language.embed_tokens.weight.normal_(0, 0.15)
    for layer in language.layers:
        layer.self_attn.k_proj.weight.copy_(layer.self_attn.q_proj.weight)
        layer.self_attn.o_proj.weight.copy_(0.3 * layer.self_attn.v_proj.weight.T)
        layer.mlp.down_proj.weight.mul_(0.15)
    model.model.multi_modal_projector.linear_2.weight.mul_(0.5)


def build_tokenizer(
    longest: int, vocabulary: Sequence[str] = (), media: Sequence[str] = ("<image>",)
) -> PreTrainedTokenizerFast:
    """The word-level tokenizer; prompts have at most `longest` tokens.

    vocabulary  all tokens in id order, by default `words()`
    media       those that stand for an image or a clip
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    ids = {word: i for i, word in enumerate(vocabulary or words())}
    raw = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    raw.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", ids["<s>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, unk_token="<unk>", pad_token="<pad>", bos_token="<s>",
        eos_token="</s>", additional_special_tokens=list(media), padding_side="left",
        model_max_length=longest,
    )  # fmt: skip


def build_processor() -> LlavaProcessor:
    """The processor: CLIP images at 336 px, word-level tokenizer, LLaVA-1.5's template."""
    from transformers import CLIPImageProcessor, LlavaProcessor

    side = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    image_processor = CLIPImageProcessor(
        size={"shortest_edge": IMAGE_SIZE},
        crop_size=side,
        image_mean=[MEAN] * 3,
        image_std=[STD] * 3,
    )
    return LlavaProcessor(
        image_processor=image_processor,
        tokenizer=build_tokenizer(2048),
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )


def save(model: PreTrainedModel, processor: ProcessorMixin, folder: Path) -> None:
    """Write a model (bf16 safetensors) and its processor to `folder`."""
    import copy

    folder.mkdir(parents=True, exist_ok=True)
    smaller: Any = copy.deepcopy(model)
    smaller.to(torch.bfloat16).save_pretrained(folder)
    processor.save_pretrained(folder)
