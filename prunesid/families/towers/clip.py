"""What a CLIP tower (transformers' `CLIPVisionModel`) leaves behind, read by forward hooks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from prunesid.core.hooks import outputs, split_heads
from prunesid.core.needs import Needs
from prunesid.core.record import VisionRecord


@torch.no_grad()
def read_clip(
    tower: Any, pixels: Tensor, feature_block: int, needs: Needs, *, crops: bool = False
) -> VisionRecord:
    """One pass over pixels (B, 3, height, width) -> features of a 0-based block, CLS removed.

    Everything that `needs` names but `projected` and `joint`, and CLS; `first_cls_attention`, by
    which a budget is shared among the crops of an image, only where pixels are such `crops`. Hooks keep the tower on
    SDPA, which returns no attention maps; the CLS row recomputed here equals eager attention to
    1e-5. ValueError for layers that the tower lacks.
    """
    blocks = tower.encoder.layers
    beyond = sorted(layer for layer in needs.layers if not 0 <= layer < len(blocks))
    if beyond:
        raise ValueError(f"layers {beyond} are not among 0..{len(blocks) - 1}")
    block, first_block, last_block = blocks[feature_block], blocks[0], blocks[-1]
    wanted = {f"hidden {i}": blocks[i] for i in {*needs.layers, feature_block}}
    if needs.cls_attention:
        wanted["query"] = block.self_attn.q_proj
    if needs.cls_attention or needs.keys:
        wanted["key"] = block.self_attn.k_proj
    if needs.last_attention or needs.last_cls_attention:
        wanted["last query"] = last_block.self_attn.q_proj
    if needs.last_attention or needs.last_keys or needs.last_cls_attention:
        wanted["last key"] = last_block.self_attn.k_proj
    if crops and needs.first_cls_attention:
        wanted["first query"] = first_block.self_attn.q_proj
        wanted["first key"] = first_block.self_attn.k_proj
    with outputs(wanted) as seen:
        tower(pixels.to(block.layer_norm1.weight.device, block.layer_norm1.weight.dtype))
    features = seen[f"hidden {feature_block}"]
    heads = block.self_attn.num_heads
    key = split_heads(seen["key"], heads) if "key" in seen else None
    row = None
    if needs.cls_attention and key is not None:
        row = _cls_row(block.self_attn, seen["query"], seen["key"])
    last_key = seen.get("last key")
    last_row = None
    if needs.last_attention and last_key is not None:
        # One head of full width sums many products: in float32 whatever the model's dtype.
        last_query = seen["last query"][:, :1].float() * last_key.shape[-1] ** -0.5
        scores = last_query @ last_key.float().transpose(-1, -2)
        last_row = scores.softmax(-1)[:, 0, 1:]
    last_mean = None
    if needs.last_cls_attention and last_key is not None:
        last_mean = _cls_row(last_block.self_attn, seen["last query"], last_key).mean(dim=1)
    first_mean = None
    if "first key" in seen:
        first = _cls_row(first_block.self_attn, seen["first query"], seen["first key"])
        first_mean = first.mean(dim=1)
    size = tower.config.image_size // tower.config.patch_size
    return VisionRecord(
        features=features[:, 1:],
        cls=features[:, 0],
        cls_attention=row,
        keys=key[:, :, 1:] if needs.keys and key is not None else None,
        last_attention=last_row,
        last_keys=last_key[:, 1:] if needs.last_keys and last_key is not None else None,
        first_cls_attention=first_mean,
        last_cls_attention=last_mean,
        hidden={layer: seen[f"hidden {layer}"][:, 1:] for layer in needs.layers},
        grid=(size, size),
    )


def _cls_row(attention: Any, query: Tensor, key: Tensor) -> Tensor:
    """What a block's query and key layers gave (B, 1 + T, D) -> (B, heads, T) float32 from CLS."""
    cls = split_heads(query, attention.num_heads)[:, :, :1]
    scores = cls @ split_heads(key, attention.num_heads).transpose(-1, -2) * attention.scale
    return scores.softmax(-1, dtype=torch.float32)[:, :, 0, 1:]


def feature_block(vision_feature_layer: int, num_blocks: int) -> int:
    """0-based block that produces `hidden_states[vision_feature_layer]`.

    hidden_states[i] is the input of block i, so its producer is block i - 1. ValueError where that
    is the embeddings.
    """
    block = vision_feature_layer % (num_blocks + 1) - 1
    if block < 0:
        raise ValueError("vision_feature_layer names the embeddings, which no block produces")
    return block
