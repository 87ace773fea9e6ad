"""Shared by the tiny models of several families: sizes, and weights that say something."""

from __future__ import annotations

from typing import Any

# 56 px, patch 14: 16 patches.
VISION = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 2,
    "image_size": 56, "patch_size": 14,
}  # fmt: skip
TEXT = {
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


def clip_vision() -> Any:
    from transformers import CLIPVisionConfig

    return CLIPVisionConfig(**VISION, projection_dim=32)


def text_config(tokenizer: Any, kind: str = "llama", positions: int = 1024) -> dict:
    """A decoder of the tokenizer's vocabulary and special tokens; `kind` is "llama" or "qwen2"."""
    from transformers import LlamaConfig, Qwen2Config

    return {"llama": LlamaConfig, "qwen2": Qwen2Config}[kind](
        **TEXT,
        vocab_size=len(tokenizer),
        max_position_embeddings=positions,
        **special_tokens(tokenizer),
    ).to_dict()


def special_tokens(tokenizer: Any) -> dict[str, int]:
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    return {name: getattr(tokenizer, name) for name in names}


def build(cls: Any, config: Any, tokenizer: Any, sharpness: float = 20.0) -> Any:
    """A LLaVA-like model of random weights, large enough that the image reaches the answer.

    `sharpness` scales the output head, so that no two logits are near a tie.
    """
    import torch

    torch.manual_seed(0)
    model = cls(config).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
    model.model.multi_modal_projector.linear_2.weight.data *= 4
    model.lm_head.weight.data *= sharpness
    # Makes short answers common.
    model.lm_head.weight.data[tokenizer.eos_token_id] *= 2
    for name, value in special_tokens(tokenizer).items():
        setattr(model.generation_config, name, value)
    return model
