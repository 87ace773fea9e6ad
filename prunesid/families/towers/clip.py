"""Vision transformers read by forward hooks: CLIP's tower, and others laid out as `Names` say."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor

from prunesid.core.hooks import outputs, split_heads
from prunesid.core.needs import Needs
from prunesid.core.record import VisionRecord

# Scores (heads, queries, tokens) in memory at a time: 256 MiB in float32.
SCORES = 2**26


@dataclass(frozen=True)
class Names:
    """Attributes of a tower, its blocks, and of the modules that give a block's queries and keys.

    cls  whether there is a CLS token; without it the attention that patches receive takes the place
         of CLS attention
    """

    blocks: str = "encoder.layers"
    attention: str = "self_attn"
    query: str = "q_proj"
    key: str = "k_proj"
    cls: bool = True


CLIP_NAMES = Names()
SIGLIP_NAMES = Names(cls=False)


@torch.no_grad()
def read_clip(
    tower: Any,
    pixels: Tensor,
    feature_block: int,
    needs: Needs,
    *,
    crops: bool = False,
    names: Names = CLIP_NAMES,
) -> VisionRecord:
    """One pass over pixels (B, 3, height, width) -> features of a 0-based block, CLS removed.

    Everything that `needs` names but `projected` and `joint`, and CLS; `first_cls_attention`, by
    which a budget is shared among the crops of an image, only where pixels are such `crops`. Of a
    tower without CLS, features, cls_attention, last_cls_attention, keys and hidden alone. Features
    come before the tower's last layer norm. Hooks keep the tower on SDPA, which returns no
    attention maps; attention recomputed here equals eager attention to 1e-5. ValueError for layers
    that the tower lacks.
    """
    if not names.cls:
        needs = replace(needs, last_attention=False, last_keys=False)
    blocks = attrgetter(names.blocks)(tower)
    check_layers(needs.layers, blocks)
    places = {"own": feature_block, "first": 0, "last": -1}
    attention = {at: attrgetter(names.attention)(blocks[place]) for at, place in places.items()}
    by_row = {
        "own": needs.cls_attention,
        "first": crops and names.cls and needs.first_cls_attention,
        "last": needs.last_attention or needs.last_cls_attention,
    }
    keyed = {"own": needs.keys, "last": needs.last_keys}
    wanted = {f"hidden {i}": blocks[i] for i in {*needs.layers, feature_block}}
    for at, own in attention.items():
        if by_row[at]:
            wanted[f"{at} query"] = attrgetter(names.query)(own)
        if by_row[at] or keyed.get(at):
            wanted[f"{at} key"] = attrgetter(names.key)(own)
    with outputs(wanted) as seen:
        tower(pixels.to(tower.device, tower.dtype))
    special = int(names.cls)

    def patches(name: str) -> Tensor:
        return seen[name][:, special:]

    def row(at: str) -> Tensor:
        """(B, heads, T) float32: attention from CLS, or received, in a block."""
        own = attention[at]
        query, key = (split_heads(seen[f"{at} {of}"], own.num_heads) for of in ("query", "key"))
        if not names.cls:
            return received_attention(query, key, own.scale)
        scores = query[:, :, :1] @ key.transpose(-1, -2) * own.scale
        return scores.softmax(-1, dtype=torch.float32)[:, :, 0, 1:]

    features, heads = patches(f"hidden {feature_block}"), attention["own"].num_heads
    side = math.isqrt(features.shape[1])
    return VisionRecord(
        features=features,
        cls=seen[f"hidden {feature_block}"][:, 0] if names.cls else None,
        cls_attention=row("own") if by_row["own"] else None,
        keys=split_heads(seen["own key"], heads)[:, :, special:] if needs.keys else None,
        last_attention=(
            _one_head(seen["last query"], seen["last key"]) if needs.last_attention else None
        ),
        last_keys=patches("last key") if needs.last_keys else None,
        first_cls_attention=row("first").mean(dim=1) if by_row["first"] else None,
        last_cls_attention=row("last").mean(dim=1) if needs.last_cls_attention else None,
        hidden={layer: patches(f"hidden {layer}") for layer in needs.layers},
        grid=(side, side),
    )


@torch.no_grad()
def received_attention(query: Tensor, key: Tensor, scale: float) -> Tensor:
    """Queries and keys (B, heads, T, d), as attention multiplies them -> (B, heads, T) float32.

    The column means of softmax(q k^T scale): the share of a query's attention that goes to each
    token, on average over the T queries. They sum to 1 in each head, as a CLS row over all tokens
    does. Images are taken one by one and in chunks of queries, so that neither changes with the
    batch.
    """
    images, heads, tokens, _ = query.shape
    total = torch.zeros((images, heads, tokens), dtype=torch.float32, device=query.device)
    step = max(1, SCORES // (heads * tokens))
    for image in range(images):
        turned = key[image].transpose(-1, -2)
        for start in range(0, tokens, step):
            scores = query[image, :, start : start + step] @ turned * scale
            total[image] += scores.softmax(-1, dtype=torch.float32).sum(dim=1)
    return total / tokens


def _one_head(query: Tensor, key: Tensor) -> Tensor:
    """Queries and keys (B, 1 + T, D) -> (B, T) float32: CLS's attention, by one head of width D."""
    # It sums many products: in float32 whatever the model's dtype.
    scores = query[:, :1].float() * key.shape[-1] ** -0.5 @ key.float().transpose(-1, -2)
    return scores.softmax(-1)[:, 0, 1:]


def check_layers(layers: Iterable[int], blocks: Sequence[Any]) -> None:
    """ValueError for layers that are no blocks of a tower."""
    beyond = sorted(layer for layer in layers if not 0 <= layer < len(blocks))
    if beyond:
        raise ValueError(f"layers {beyond} are not among 0..{len(blocks) - 1}")


def feature_block(config: Any, tower: str, strategy: str) -> int:
    """The 0-based block whose output a model takes as its features.

    ValueError unless the tower is of the type `tower`, read at one block, and
    `vision_feature_select_strategy` is `strategy`.
    """
    vision = config.vision_config
    if vision.model_type != tower:
        raise ValueError(
            f"models of the family {config.model_type} need the tower {tower}, "
            f"not {vision.model_type}"
        )
    found = config.vision_feature_select_strategy
    if found != strategy:
        raise ValueError(f"vision_feature_select_strategy must be {strategy!r}, not {found!r}")
    layer, states = config.vision_feature_layer, vision.num_hidden_layers + 1
    if not isinstance(layer, int) or not -states < layer < states or layer % states == 0:
        raise ValueError(f"vision_feature_layer must name one block's output, not {layer!r}")
    # hidden_states[i] is the input of block i, so its producer is block i - 1.
    return layer % states - 1
