"""Weights of a folder against its config.json, from the headers of safetensors alone.

Only what all families write alike is compared: the layers of the language model with its
embeddings, and those of a tower of CLIP's kind. Loading compares everything.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from prunesid.core.costs import Transformer
from prunesid.study.config.documents import ConfigError
from prunesid.study.config.model import geometry_of, read_config
from prunesid.study.config.weights import Shape, shapes


def contradictions(folder: Path, files: Sequence[Path]) -> list[str]:
    """What the weights lack or have in another shape; [] where config.json cannot be compared."""
    try:
        config, geometry = read_config(str(folder)), geometry_of(str(folder))
    except ConfigError:
        return []
    tensors = {name: shape for file in files for name, shape in shapes(file).items()}
    words = (geometry.vocabulary, geometry.decoder.width)
    found = list(_against(tensors, geometry.decoder, _decoder(geometry.decoder), words))
    # Where config.json says nothing of the tower, it is another checkpoint's.
    if config.get("vision_config"):
        found += _against(tensors, geometry.tower, _tower(geometry.tower))
    return found


def _against(
    tensors: Mapping[str, Shape | None],
    sizes: Transformer,
    layer: Mapping[str, Shape],
    words: Shape | None = None,
) -> Iterator[str]:
    """The differences of a stack of layers, known by the first name in `layer`."""
    mark = re.compile(rf"(.*)layers\.\d+\.{next(iter(layer))}\.weight")
    # A checkpoint may hold a smaller stack of the kind beside it.
    stacks = Counter(found[1] for found in map(mark.fullmatch, tensors) if found).most_common(1)
    for stack, _ in stacks:
        expected = {f"layers.{i}.{n}": s for i in range(sizes.layers) for n, s in layer.items()}
        if words is not None:
            expected["embed_tokens"] = words
        for name, shape in expected.items():
            whole = f"{stack}{name}.weight"
            stored = tensors.get(whole)
            if whole not in tensors:
                yield f"{whole} is missing, by config.json {_by(shape)}"
            elif stored is not None and stored != shape:
                yield f"{whole} is {_by(stored)}, by config.json {_by(shape)}"


def _decoder(sizes: Transformer) -> dict[str, Shape]:
    width, ffn = sizes.width, sizes.ffn
    queries, keys = sizes.heads * sizes.head_dim, sizes.kv_heads * sizes.head_dim
    return {
        "mlp.gate_proj": (ffn, width),
        "mlp.up_proj": (ffn, width),
        "mlp.down_proj": (width, ffn),
        "self_attn.q_proj": (queries, width),
        "self_attn.k_proj": (keys, width),
        "self_attn.v_proj": (keys, width),
        "self_attn.o_proj": (width, queries),
        "input_layernorm": (width,),
        "post_attention_layernorm": (width,),
    }


def _tower(sizes: Transformer) -> dict[str, Shape]:
    width, ffn = sizes.width, sizes.ffn
    return {
        "mlp.fc1": (ffn, width),
        "mlp.fc2": (width, ffn),
        **{f"self_attn.{each}_proj": (width, width) for each in ("q", "k", "v", "out")},
        **{f"layer_norm{each}": (width,) for each in (1, 2)},
    }


def _by(shape: Shape) -> str:
    return " x ".join(map(str, shape))
