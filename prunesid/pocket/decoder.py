"""The language model's forward pass for training: many questions behind one image prefix.

Each question sees the prefix and itself, and its positions start where the prefix ends: exactly
what `generate` shows the model for that question alone. The prefix, by far the longest part, is
computed once per image. A test holds this pass equal to transformers'.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from prunesid.pocket.tower import attend

# In bf16, -inf minus -inf makes NaN; this is far below every score and safe.
BLOCKED = -30000.0


@dataclass(frozen=True)
class Packed:
    """The questions of B images, concatenated per image and padded to L tokens.

    ids: (B, L) token ids; segment: (B, L) number of the question, -1 for padding; place: (B, L)
    position inside the question; weight: (B, L) loss weight of predicting this token; answer:
    (B, L) bool, whether it belongs to an answer.
    """

    ids: Tensor
    segment: Tensor
    place: Tensor
    weight: Tensor
    answer: Tensor


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat([-second, first], -1) * sin


def _question_mask(segment: Tensor, prefix: int) -> Tensor:
    """(B, 1, L, prefix + L) additive: a question sees the prefix and its own past."""
    length = segment.shape[1]
    same = segment[:, :, None] == segment[:, None, :]
    past = torch.ones(length, length, dtype=torch.bool).tril()
    own = torch.where(same & past, 0.0, BLOCKED)
    return torch.cat([own.new_zeros(len(segment), length, prefix), own], 2)[:, None]


def packed_forward(language: Any, prefix: Tensor, packed: Packed) -> Tensor:
    """Last hidden states (B, L, D) of the packed questions behind `prefix` (B, P, D) embeddings."""
    count = prefix.shape[1]
    compute = torch.bfloat16 if torch.is_autocast_enabled("cpu") else prefix.dtype
    x = torch.cat([prefix, language.embed_tokens(packed.ids)], 1)
    start = torch.arange(count).expand(len(prefix), -1)
    cos, sin = language.rotary_emb(x, torch.cat([start, count + packed.place], 1))
    cos, sin = cos[:, None].to(compute), sin[:, None].to(compute)
    causal = torch.full((count, count), BLOCKED).triu(1).to(compute)
    mask = _question_mask(packed.segment, count).to(compute)
    for number, layer in enumerate(language.layers):
        last = number + 1 == len(language.layers)
        attention = layer.self_attn
        y = layer.input_layernorm(x)
        query, key, value = (
            p(y).unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)
            for p in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        query, key = _rotate(query, cos, sin), _rotate(key, cos, sin)
        mixed = attend(query[:, :, count:], key, value, mask)
        if last:  # nobody reads the prefix behind the last layer
            x = x[:, count:]
        else:
            before = attend(query[:, :, :count], key[:, :, :count], value[:, :, :count], causal)
            mixed = torch.cat([before, mixed], 2)
        x = x + attention.o_proj(mixed.transpose(1, 2).flatten(2))
        x = x + layer.mlp(layer.post_attention_layernorm(x))
    return language.norm(x)
