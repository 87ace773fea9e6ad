"""Tiny random decoders of the real classes, and prompts for them."""

from __future__ import annotations

import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from prunesid.late.columns import AFTER, BEFORE, GONE, VISUAL, Columns

FAMILIES = {
    "llama": (LlamaConfig, LlamaForCausalLM, 4),
    "llama grouped": (LlamaConfig, LlamaForCausalLM, 2),
    "qwen2 grouped": (Qwen2Config, Qwen2ForCausalLM, 1),
}
QWEN3 = (Qwen3Config, Qwen3ForCausalLM, 2)
WIDTH = 32


def build(family="llama grouped", layers=6, dtype=torch.float64, seed=0):
    """A decoder with attention sharp enough that tokens differ."""
    config, model, kv_heads = QWEN3 if family == "qwen3" else FAMILIES[family]
    torch.manual_seed(seed)
    found = model(
        config(
            vocab_size=50, hidden_size=WIDTH, intermediate_size=48, num_hidden_layers=layers,
            num_attention_heads=4, num_key_value_heads=kv_heads, head_dim=8,
            attn_implementation="sdpa", bos_token_id=None, eos_token_id=None, pad_token_id=None,
        )
    )  # fmt: skip
    with torch.no_grad():
        for layer in found.model.layers:
            layer.self_attn.q_proj.weight.mul_(12)
            layer.self_attn.k_proj.weight.mul_(12)
            layer.self_attn.o_proj.weight.mul_(8)
            layer.mlp.down_proj.weight.mul_(8)
        found.lm_head.weight.mul_(20)
    return found.to(dtype).eval()


def prompt(seed, before=3, visual=40, after=7, dtype=torch.float64):
    """Embeddings before, of and behind an image."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        torch.randn(count, WIDTH, generator=generator, dtype=torch.float64).to(dtype)
        for count in (before, visual, after)
    )


def batch(prompts, side="right"):
    """Columns of prompts of any lengths, padded on one side, `inside` in front of the text."""
    width = max(sum(map(len, each)) for each in prompts)
    rows, kinds = [], []
    for before, visual, after in prompts:
        kind = [BEFORE] * len(before) + [VISUAL] * len(visual) + [AFTER] * len(after)
        gap = width - len(kind)
        padding = torch.full((gap, WIDTH), 7.0, dtype=before.dtype)
        parts = [before, visual, after]
        place = {"left": 0, "inside": 2, "right": 3}[side]
        at = sum(map(len, parts[:place]))
        rows.append(torch.cat([*parts[:place], padding, *parts[place:]]))
        kinds.append(kind[:at] + [GONE] * gap + kind[at:])
    return Columns.of(torch.stack(rows), torch.tensor(kinds))
