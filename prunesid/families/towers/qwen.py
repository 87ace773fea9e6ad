"""Vision towers of Qwen2-VL, Qwen2.5-VL and Qwen3-VL, read by forward hooks.

The tower sees frames (an image is one, a clip one per temporal patch) as sequences of patches, in
which the merge_size x merge_size patches of a merged token are neighbors. The merger makes the
features from them. The towers have no CLS token; the attention that patches receive takes the place
of CLS attention.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.models.qwen2_vl.modeling_qwen2_vl import apply_rotary_pos_emb_vision

from prunesid.core.hooks import keywords, outputs, split_heads
from prunesid.core.needs import Needs
from prunesid.core.record import VisionRecord
from prunesid.families.towers.clip import check_layers, received_attention


@torch.no_grad()
def read_qwen(
    tower: Any, pixels: Tensor, grids: Tensor, needs: Needs, order: Tensor | None = None
) -> list[VisionRecord]:
    """One pass over the patches (P, channels * time * height * width) of M media -> their records.

    grids  (M, 3) frames, rows and columns of patches of each medium
    order  number of the merged token, in raster order of all media, at each place of the tower's
           sequence; None if it is in raster order

    A record's rows are the frames of a medium, its tokens the merged ones in raster order:

    features       the merger's output
    hidden         outputs of blocks, mean over the patches of a merged token
    keys           of the last block, as its linear layer gives them (without rotary positions),
                   mean over the patches of a merged token
    cls_attention  attention received in the last block within the frame: mean over its queries
                   (with rotary positions), sum over the patches of a merged token. It equals
                   eager attention's column means to 1e-5
    last_cls_attention  the same, mean over heads
    projected      the features, which are as wide as the language model
    carried        of a tower that has any, the outputs of its further mergers side by side

    ValueError for layers that the tower lacks.
    """
    blocks = tower.blocks
    check_layers(needs.layers, blocks)
    block, unit = blocks[-1], tower.spatial_merge_size**2
    wanted = {f"hidden {i}": blocks[i] for i in needs.layers}
    received = needs.cls_attention or needs.last_cls_attention
    if received or needs.keys:
        wanted["qkv"] = block.attn.qkv
    with outputs(wanted) as seen, keywords(block) as given:
        merged = tower(pixels.to(tower.device, tower.dtype), grid_thw=grids.to(tower.device))
    back = None if order is None else order.argsort().to(tower.device)
    shapes = [(frames, rows * columns // unit) for frames, rows, columns in grids.tolist()]
    media = [frames * tokens for frames, tokens in shapes]

    def by_medium(tokens: Tensor, undo: bool = True) -> list[Tensor]:
        """Merged tokens (U, ...) in the tower's order -> (frames, tokens, ...) of each medium."""
        tokens = tokens if back is None or not undo else tokens[back]
        pieces = tokens.split(media)
        return [own.unflatten(0, shape) for own, shape in zip(pieces, shapes, strict=True)]

    features = by_medium(merged.pooler_output, undo=False)
    further = getattr(merged, "deepstack_features", None)
    carried = by_medium(torch.cat(further, dim=1), undo=False) if further else None
    hidden = {i: by_medium(_mean(seen[f"hidden {i}"], unit)) for i in sorted(needs.layers)}
    heads = block.attn.num_heads
    keys = attention = None
    if needs.keys:
        key = seen["qkv"].chunk(3, dim=-1)[1]
        keys = [split_heads(own, heads) for own in by_medium(_mean(key, unit))]
    if received:
        query, key = (part.unflatten(-1, (heads, -1)) for part in seen["qkv"].chunk(3, dim=-1)[:2])
        query, key = apply_rotary_pos_emb_vision(query, key, *given["position_embeddings"])
        patches = [(frames, tokens * unit) for frames, tokens in shapes]
        by_patch = _received(query, key, patches, block.attn.scaling)
        summed = by_patch.unflatten(0, (-1, unit)).sum(dim=1)
        attention = [own.transpose(1, 2) for own in by_medium(summed)]
    return [
        VisionRecord(
            features=features[medium],
            cls_attention=attention[medium] if attention and needs.cls_attention else None,
            keys=None if keys is None else keys[medium],
            projected=features[medium] if needs.projected else None,
            last_cls_attention=(
                attention[medium].mean(dim=1) if attention and needs.last_cls_attention else None
            ),
            hidden={i: layer[medium] for i, layer in hidden.items()},
            carried=None if carried is None else carried[medium],
            grid=(rows // tower.spatial_merge_size, columns // tower.spatial_merge_size),
        )
        for medium, (_, rows, columns) in enumerate(grids.tolist())
    ]


def _mean(patches: Tensor, unit: int) -> Tensor:
    """(P, D) -> (P / unit, D)."""
    return patches.unflatten(0, (-1, unit)).mean(dim=1)


def _received(query: Tensor, key: Tensor, shapes: list[tuple[int, int]], scale: float) -> Tensor:
    """Queries and keys (P, heads, d) of media of (frames, patches) -> (P, heads) received."""
    sizes = [frames * patches for frames, patches in shapes]
    parts = []
    for own_query, own_key, shape in zip(query.split(sizes), key.split(sizes), shapes, strict=True):
        framed = [own.unflatten(0, shape).transpose(1, 2) for own in (own_query, own_key)]
        found = received_attention(framed[0], framed[1], scale)
        parts.append(found.transpose(1, 2).flatten(0, 1))
    return torch.cat(parts)
