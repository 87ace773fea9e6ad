"""Keys and values of every layer, whose lengths may differ."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class LayerCaches:
    """A KV cache whose layers may differ in length and whose rows and columns can be selected.

    A transformers decoder layer takes it as `past_key_values`, of which it calls `update` only.
    Keys and values are (B, heads, S, d), keys after the rotary embedding.
    """

    def __init__(self, depth: int) -> None:
        self.keys: list[Tensor | None] = [None] * depth
        self.values: list[Tensor | None] = [None] * depth

    def update(
        self, keys: Tensor, values: Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Append to a layer and return everything it holds."""
        past, old = self.keys[layer_idx], self.values[layer_idx]
        if past is not None and old is not None:
            keys, values = torch.cat([past, keys], dim=2), torch.cat([old, values], dim=2)
        self.keys[layer_idx], self.values[layer_idx] = keys, values
        return keys, values

    def held(self, layer: int) -> Tensor:
        """The keys of a layer that has run."""
        keys = self.keys[layer]
        if keys is None:
            raise ValueError(f"layer {layer} has not run yet")
        return keys

    def length(self, layer: int) -> int:
        """Number of columns of a layer."""
        return self.held(layer).shape[2]

    def select_rows(self, rows: Tensor) -> None:
        """Replace row i by the former row `rows[i]`; rows may repeat."""
        for tensors in (self.keys, self.values):
            tensors[:] = [None if tensor is None else tensor[rows] for tensor in tensors]

    def select_columns(self, layer: int, columns: Tensor) -> None:
        """Keep `columns` (B, W) of a layer, in that order."""
        for tensors in (self.keys, self.values):
            tensor = tensors[layer]
            if tensor is not None:
                index = columns[:, None, :, None].expand(-1, tensor.shape[1], -1, tensor.shape[3])
                tensors[layer] = tensor.gather(2, index)
