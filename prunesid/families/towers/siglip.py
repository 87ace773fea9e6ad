"""What a SigLIP tower (transformers' `SiglipVisionModel`) leaves behind, read by forward hooks.

The tower has no CLS token; the attention that patches receive takes the place of CLS attention.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from prunesid.core.hooks import outputs, split_heads
from prunesid.core.needs import Needs
from prunesid.core.record import VisionRecord
from prunesid.families.towers.received_attention import received_attention


@torch.no_grad()
def read_siglip(tower: Any, pixels: Tensor, feature_block: int, needs: Needs) -> VisionRecord:
    """One pass over pixels (B, 3, height, width) -> features of a 0-based block.

    features       the block's output, before the tower's last layer norm
    cls_attention  attention received in that block, mean over its queries; equals eager attention's
                   column means to 1e-5
    keys           of that block
    hidden         outputs of other blocks

    ValueError for layers that the tower lacks.
    """
    blocks = tower.encoder.layers
    beyond = sorted(layer for layer in needs.layers if not 0 <= layer < len(blocks))
    if beyond:
        raise ValueError(f"layers {beyond} are not among 0..{len(blocks) - 1}")
    block = blocks[feature_block]
    attention, heads = block.self_attn, block.self_attn.num_heads
    wanted = {f"hidden {i}": blocks[i] for i in {*needs.layers, feature_block}}
    if needs.cls_attention:
        wanted["query"] = attention.q_proj
    if needs.cls_attention or needs.keys:
        wanted["key"] = attention.k_proj
    with outputs(wanted) as seen:
        tower(pixels.to(block.layer_norm1.weight.device, block.layer_norm1.weight.dtype))
    key = split_heads(seen["key"], heads) if "key" in seen else None
    received = None
    if needs.cls_attention and key is not None:
        received = received_attention(split_heads(seen["query"], heads), key, attention.scale)
    size = tower.config.image_size // tower.config.patch_size
    return VisionRecord(
        features=seen[f"hidden {feature_block}"],
        cls_attention=received,
        keys=key if needs.keys else None,
        hidden={layer: seen[f"hidden {layer}"] for layer in needs.layers},
        grid=(size, size),
    )
