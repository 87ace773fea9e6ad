"""The language model's forward pass for training: many questions after one image prefix.

Each question sees the prefix and itself, and its positions start where the prefix ends, exactly as
`generate` has it for that question alone. The prefix, by far the longest part, is computed once per
image. A test holds this pass equal to transformers'.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

attend = F.scaled_dot_product_attention


@dataclass(frozen=True)
class Packed:
    """The questions of B images, concatenated per image and padded to L tokens.

    ids      (B, L) token ids
    segment  (B, L) number of the question, -1 for padding
    place    (B, L) position inside the question
    weight   (B, L) loss weight of predicting this token
    answer   (B, L) bool, whether the token belongs to an answer
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
    """(B, 1, L, prefix + L) bool: a question sees the prefix and its own past."""
    length = segment.shape[1]
    same = segment[:, :, None] == segment[:, None, :]
    past = torch.ones(length, length, dtype=torch.bool).tril()
    seen = torch.ones(len(segment), length, prefix, dtype=torch.bool)
    return torch.cat([seen, same & past], 2)[:, None]


@dataclass(frozen=True)
class States:
    """Hidden states of a prefix and the packed questions after it.

    prefix     (B, P, D) per block but the last, whose prefix nothing reads
    questions  (B, L, D) per block, and the last one's normalized for the output layer
    """

    prefix: list[Tensor]
    questions: list[Tensor]


@dataclass(frozen=True)
class Answered:
    """The states after an image's questions, and what they were asked with.

    tokens  (1, K, E) visual tokens before the questions
    logits  (1, L, V) of the word after each
    steps   what `packing.pack` says of each question's words
    """

    states: States
    tokens: Tensor
    logits: Tensor
    packed: Packed
    steps: dict[str, Tensor]


def packed_forward(
    language: Any, prefix: Tensor, packed: Packed, places: Tensor | None = None, end: int = 0
) -> States:
    """The states of `packed` after the embeddings `prefix` (B, P, D).

    places, end  for a prefix with gaps: the positions (P,) of what is left of it, and the first
                 position after it; for M-RoPE (3, P)
    """
    count = prefix.shape[1]
    if places is None:
        places, end = torch.arange(count), count
    x = torch.cat([prefix, language.embed_tokens(packed.ids)], 1)
    start = places[..., None, :].expand(*places.shape[:-1], len(prefix), -1)
    after = (end + packed.place).expand(*places.shape[:-1], -1, -1)
    cos, sin = language.rotary_emb(x, torch.cat([start, after], -1))
    cos, sin = cos[:, None], sin[:, None]
    mask = _question_mask(packed.segment, count)
    states = States([], [])
    for number, layer in enumerate(language.layers):
        last = number + 1 == len(language.layers)
        attention = layer.self_attn
        y = layer.input_layernorm(x)
        query, key, value = (
            p(y).unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)
            for p in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        query, key = _rotate(query, cos, sin), _rotate(key, cos, sin)
        mixed = attend(query[:, :, count:], key, value, attn_mask=mask)
        if last:  # the prefix is not read after the last layer
            x = x[:, count:]
        else:
            query, key, value = (t[:, :, :count] for t in (query, key, value))
            before = attend(query, key, value, is_causal=True)
            mixed = torch.cat([before, mixed], 2)
        x = x + attention.o_proj(mixed.transpose(1, 2).flatten(2))
        x = x + layer.mlp(layer.post_attention_layernorm(x))
        if not last:
            states.prefix.append(x[:, :count])
        states.questions.append(x if last else x[:, count:])
    states.questions.append(language.norm(x))
    return states
