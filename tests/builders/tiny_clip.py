"""A tiny CLIP model, its vision tower as large as the tiny LLaVA's, with segments of 6 tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from builders.tiny_parts import VISION

SEGMENT, JOINT = 6, 20


def save_tiny_clip(folder: Path, words: Path, **vision: Any) -> None:
    """Random weights; the tokenizer is that in `words`, with an end token after each text."""
    import torch
    from tokenizers import processors
    from transformers import AutoTokenizer, CLIPConfig, CLIPModel

    tokenizer = AutoTokenizer.from_pretrained(words)
    start, end = tokenizer.bos_token, tokenizer.eos_token
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}",
        special_tokens=[(start, tokenizer.bos_token_id), (end, tokenizer.eos_token_id)],
    )
    config = CLIPConfig(
        vision_config=VISION | {"projection_dim": JOINT} | vision,
        text_config={
            "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2,
            "num_attention_heads": 2, "vocab_size": len(tokenizer),
            "max_position_embeddings": SEGMENT, "projection_dim": JOINT,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id,
        },
        projection_dim=JOINT,
    )  # fmt: skip
    torch.manual_seed(1)
    model = CLIPModel(config)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
