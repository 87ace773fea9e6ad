"""The vision tower's forward pass for training, on any window of the patch grid.

transformers' own forward needs the whole 24 x 24 grid. Training starts on 12 x 12 windows (a
quarter of the work), and a window must see the position embeddings of its place in the full grid.
A test holds this pass equal to transformers'.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from prunesid.pocket.model import GRID


def _heads(x: Tensor, heads: int) -> Tensor:
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def window_positions(rows: Tensor, columns: Tensor, side: int) -> Tensor:
    """(B, 1 + side^2) rows of the position table for windows whose corners are given, (B,)."""
    offset = torch.arange(side)
    row = (rows[:, None, None] + offset[:, None]).expand(-1, side, side)
    column = (columns[:, None, None] + offset).expand(-1, side, side)
    patches = 1 + (row * GRID + column).flatten(1)
    return torch.cat([torch.zeros(len(rows), 1, dtype=patches.dtype), patches], 1)


def tower_forward(tower: Any, pixels: Tensor, positions: Tensor) -> list[Tensor]:
    """Output of every block, each (B, 1 + T, D), for `pixels` (B, 3, S, S) at `positions`."""
    embeddings = tower.embeddings
    patches = F.conv2d(pixels, embeddings.patch_embedding.weight, stride=14)
    patches = patches.flatten(2).transpose(1, 2)
    cls = embeddings.class_embedding.expand(len(pixels), 1, -1)
    x = torch.cat([cls, patches.to(cls.dtype)], 1) + embeddings.position_embedding(positions)
    x = tower.pre_layrnorm(x)
    outputs = []
    for layer in tower.encoder.layers:
        attention = layer.self_attn
        heads = attention.num_heads
        y = layer.layer_norm1(x)
        query, key, value = (
            _heads(p(y), heads) for p in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        y = F.scaled_dot_product_attention(query, key, value)
        x = x + attention.out_proj(y.transpose(1, 2).flatten(2))
        y = layer.layer_norm2(x)
        x = x + layer.mlp.fc2(F.gelu(layer.mlp.fc1(y)))
        outputs.append(x)
    return outputs
