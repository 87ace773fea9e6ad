"""A pass of a CLIP tower (transformers' `CLIPVisionModel`) by a plan of `prunesid.methods.encoder`.

It runs the tower's own modules and stops at the features. With nothing merged it equals the tower's
own pass to rounding, which a test holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from prunesid.core.hooks import split_heads
from prunesid.core.record import Kept
from prunesid.methods.encoder.merging import match, merge
from prunesid.methods.encoder.plan import Plan


@dataclass(frozen=True, eq=False)
class Reduced:
    """The tokens that a plan leaves of B crops, of each of which T patches may come out.

    kept    `plan.tokens` tokens each. The index is the patch of a token that was not merged, and -1
            elsewhere and for all tokens of a smaller image. info: selected (B, T) bool, the first
            patch of each merged token
    cls     (B, D) CLS token
    holder  (B, T) int64 which token holds each patch
    """

    kept: Kept
    cls: Tensor
    holder: Tensor


@torch.no_grad()
def reduce_clip(tower: Any, pixels: Tensor, plan: Plan) -> Reduced:
    """Pixels (B, 3, S, S) -> what is left of each; patches are numbered within `plan.box`."""
    weight = tower.embeddings.patch_embedding.weight
    size = plan.side * tower.config.patch_size
    smaller = size != pixels.shape[-1]
    pixels = pixels.to(weight.device)
    if smaller:
        pixels = F.interpolate(pixels.float(), (size, size), mode="bicubic", antialias=True)
    x = tower.embeddings(pixels.to(weight.dtype), interpolate_pos_encoding=smaller)
    x = tower.pre_layrnorm(x)
    if plan.padding:
        x = x[:, _padding_last(plan).to(x.device)]
    images, entered, _ = x.shape
    wide = torch.promote_types(x.dtype, torch.float32)
    sizes = torch.ones(images, entered, dtype=wide, device=x.device)
    # CLS and the patches that may merge, and where each of those that entered is by now.
    free = 1 + plan.box.size
    places = torch.arange(free, device=x.device).expand(images, -1)
    for layer, merged in zip(tower.encoder.layers, plan.merged, strict=False):
        uneven = plan.proportional and x.shape[1] < entered
        mixed, keys = _attend(layer, x, sizes.log() if uneven else None)
        x = x + mixed
        if merged:
            matching = match(keys[:, :, :free].mean(dim=1), merged)
            places = matching.places(free).gather(1, places)
            means, counts = merge(x[:, :free], sizes[:, :free], matching)
            x = torch.cat([means, x[:, free:]], dim=1)
            sizes = torch.cat([counts, sizes[:, free:]], dim=1)
            free -= merged
        x = x + layer.mlp(layer.layer_norm2(x))
    return _reduced(x[:, :free], sizes[:, 1:free], places[:, 1:] - 1, plan, smaller)


def _padding_last(plan: Plan) -> Tensor:
    """Numbers of all tokens: CLS, patches that may come out in raster order, then the others."""
    inside = torch.zeros(plan.side, plan.side, dtype=torch.bool)
    box = plan.box
    inside[box.top : box.bottom, box.left : box.right] = True
    others = (~inside).flatten().to(torch.uint8)
    return torch.cat([torch.zeros(1, dtype=torch.int64), 1 + others.argsort(stable=True)])


def _attend(layer: Any, x: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """Attention of x (B, t, D), `bias` (B, t) on its logits, and its keys (B, H, t, d)."""
    attention, normed = layer.self_attn, layer.layer_norm1(x)
    query, key, value = (
        split_heads(project(normed), attention.num_heads)
        for project in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    mask = None if bias is None else bias[:, None, None].to(query.dtype)
    mixed = F.scaled_dot_product_attention(query, key, value, mask, scale=attention.scale)
    return attention.out_proj(mixed.transpose(1, 2).flatten(2)), key


def _reduced(tokens: Tensor, sizes: Tensor, holder: Tensor, plan: Plan, smaller: bool) -> Reduced:
    """Tokens (B, 1 + N, D), CLS first, of so many patches (B, N), and who holds each (B, T)."""
    cls, x = tokens[:, 0], tokens[:, 1:]
    images, left, width = x.shape
    patches = torch.arange(holder.shape[1], device=x.device).expand(images, -1)
    first = torch.full((images, left), holder.shape[1], device=x.device)
    first = first.scatter_reduce(1, holder, patches, "amin")
    if plan.raster:
        order = first.argsort(dim=1)
        first, sizes = first.gather(1, order), sizes.gather(1, order)
        x = x.gather(1, order[:, :, None].expand(-1, -1, width))
        holder = order.argsort(dim=1).gather(1, holder)
    merged = sizes > 1
    selected = torch.zeros_like(holder, dtype=torch.bool).scatter(1, first, merged)
    into = holder.masked_fill(~merged.gather(1, holder), -1)
    kept = Kept(
        tokens=x,
        index=first.masked_fill(merged | smaller, -1),
        count=torch.full((images,), left, dtype=torch.int64, device=x.device),
        info={"selected": selected, "merged_into": into.to(torch.int16)},
    )
    return Reduced(kept, cls, holder)
