"""A pass of a CLIP tower (transformers' `CLIPVisionModel`) that follows a plan (`prunesid.encoding`).

It runs the tower's own modules and stops at the features. With nothing merged it equals the tower's
own pass to rounding, which a test holds.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from prunesid.encoding.merging import match, merge
from prunesid.encoding.plan import Plan
from prunesid.models.hooks import split_heads
from prunesid.record import Kept


@torch.no_grad()
def reduce_clip(tower: Any, pixels: Tensor, plan: Plan) -> Kept:
    """Pixels (B, 3, S, S) -> the `plan.tokens` tokens that are left of each image, CLS removed.

    The index is the patch of a token that was not merged, and -1 elsewhere and for all tokens of a
    smaller image. info: selected (B, T) bool, the first patch of each merged token.
    """
    weight = tower.embeddings.patch_embedding.weight
    size = plan.side * tower.config.patch_size
    smaller = size != pixels.shape[-1]
    pixels = pixels.to(weight.device)
    if smaller:
        pixels = F.interpolate(pixels.float(), (size, size), mode="bicubic", antialias=True)
    x = tower.embeddings(pixels.to(weight.dtype), interpolate_pos_encoding=smaller)
    x = tower.pre_layrnorm(x)
    images, entered, _ = x.shape
    wide = torch.promote_types(x.dtype, torch.float32)
    sizes = torch.ones(images, entered, dtype=wide, device=x.device)
    # Where each of the tokens that entered is by now.
    places = torch.arange(entered, device=x.device).expand(images, -1)
    for layer, merged in zip(tower.encoder.layers, plan.merged, strict=False):
        uneven = plan.proportional and x.shape[1] < entered
        mixed, keys = _attend(layer, x, sizes.log() if uneven else None)
        x = x + mixed
        if merged:
            matching = match(keys.mean(dim=1), merged)
            places = matching.places(x.shape[1]).gather(1, places)
            x, sizes = merge(x, sizes, matching)
        x = x + layer.mlp(layer.layer_norm2(x))
    return _kept(x[:, 1:], sizes[:, 1:], places[:, 1:] - 1, plan, smaller)


def _attend(layer: Any, x: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """What attention adds to x (B, t, D), `bias` (B, t) on its logits, and its keys (B, H, t, d)."""
    attention, normed = layer.self_attn, layer.layer_norm1(x)
    query, key, value = (
        split_heads(project(normed), attention.num_heads)
        for project in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    mask = None if bias is None else bias[:, None, None].to(query.dtype)
    mixed = F.scaled_dot_product_attention(query, key, value, mask, scale=attention.scale)
    return attention.out_proj(mixed.transpose(1, 2).flatten(2)), key


def _kept(x: Tensor, sizes: Tensor, places: Tensor, plan: Plan, smaller: bool) -> Kept:
    """`places` (B, T) says which token holds each patch."""
    images, left, width = x.shape
    patches = torch.arange(places.shape[1], device=x.device).expand(images, -1)
    first = torch.full((images, left), places.shape[1], device=x.device)
    first = first.scatter_reduce(1, places, patches, "amin")
    if plan.raster:
        order = first.argsort(dim=1)
        first, sizes = first.gather(1, order), sizes.gather(1, order)
        x = x.gather(1, order[:, :, None].expand(-1, -1, width))
    merged = sizes > 1
    selected = torch.zeros_like(places, dtype=torch.bool).scatter(1, first, merged)
    return Kept(
        tokens=x,
        index=first.masked_fill(merged | smaller, -1),
        count=torch.full((images,), left, dtype=torch.int64, device=x.device),
        info={} if smaller else {"selected": selected},
    )
