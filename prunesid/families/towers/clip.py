"""What a tower with a CLS token leaves, read by forward hooks: CLIP's, and others laid out as `Names` say."""

from __future__ import annotations

import math
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor

from prunesid.core.hooks import outputs, split_heads
from prunesid.core.needs import Needs
from prunesid.core.record import VisionRecord


@dataclass(frozen=True)
class Names:
    """Attributes of a tower, its blocks, and of what gives the attention of a block q and k."""

    blocks: str = "encoder.layers"
    attention: str = "self_attn"
    query: str = "q_proj"
    key: str = "k_proj"


CLIP_NAMES = Names()


@torch.no_grad()
def read_clip(
    tower: Any, pixels: Tensor, feature_block: int, needs: Needs, *, crops: bool = False,
    names: Names = CLIP_NAMES,
) -> VisionRecord:  # fmt: skip
    """One pass over pixels (B, 3, height, width) -> features of a 0-based block, CLS removed.

    Everything that `needs` names but `projected` and `joint`, and CLS; `first_cls_attention`, by
    which a budget is shared among the crops of an image, only where pixels are such `crops`. Hooks keep the tower on
    SDPA, which returns no attention maps; the CLS row recomputed here equals eager attention to
    1e-5. ValueError for layers that the tower lacks.
    """
    blocks = attrgetter(names.blocks)(tower)
    attention, queries, keys = map(attrgetter, (names.attention, names.query, names.key))
    beyond = sorted(layer for layer in needs.layers if not 0 <= layer < len(blocks))
    if beyond:
        raise ValueError(f"layers {beyond} are not among 0..{len(blocks) - 1}")
    own, first, last = (attention(blocks[number]) for number in (feature_block, 0, -1))
    wanted = {f"hidden {i}": blocks[i] for i in {*needs.layers, feature_block}}
    if needs.cls_attention:
        wanted["query"] = queries(own)
    if needs.cls_attention or needs.keys:
        wanted["key"] = keys(own)
    if needs.last_attention or needs.last_cls_attention:
        wanted["last query"] = queries(last)
    if needs.last_attention or needs.last_keys or needs.last_cls_attention:
        wanted["last key"] = keys(last)
    if crops and needs.first_cls_attention:
        wanted["first query"] = queries(first)
        wanted["first key"] = keys(first)
    with outputs(wanted) as seen:
        tower(pixels.to(tower.device, tower.dtype))
    features = seen[f"hidden {feature_block}"]
    heads = own.num_heads
    key = split_heads(seen["key"], heads) if "key" in seen else None
    row = None
    if needs.cls_attention and key is not None:
        row = _cls_row(own, seen["query"], seen["key"])
    last_key = seen.get("last key")
    last_row = None
    if needs.last_attention and last_key is not None:
        # One head of full width sums many products: in float32 whatever the model's dtype.
        last_query = seen["last query"][:, :1].float() * last_key.shape[-1] ** -0.5
        scores = last_query @ last_key.float().transpose(-1, -2)
        last_row = scores.softmax(-1)[:, 0, 1:]
    last_mean = None
    if needs.last_cls_attention and last_key is not None:
        last_mean = _cls_row(last, seen["last query"], last_key).mean(dim=1)
    first_mean = None
    if "first key" in seen:
        first_mean = _cls_row(first, seen["first query"], seen["first key"]).mean(dim=1)
    side = math.isqrt(features.shape[1] - 1)
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
        grid=(side, side),
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
