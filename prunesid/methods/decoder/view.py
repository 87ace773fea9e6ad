"""The view that a late method has of one prompt between two layers.

Only the rows of attention that a method asks for are computed, from the layer's own queries and
keys, so that the layer itself still runs on SDPA. They are float64, since they decide the choice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from prunesid.core.delayed import Tensor, torch


@dataclass(frozen=True, eq=False)
class View:
    """V visual tokens and the A text tokens after them, in sequence order, right after a layer.

    source         (V,) int64 number of each visual token at the decoder's input, -1 if merged
    position       (V, P) int64 rotary positions of each visual token
    hidden         (V, E) the layer's output for visual tokens; text_hidden (A, E) for text
    tokens         (V, E + X) hidden and what later layers add to it; merged tokens are made of both
    keys           (V, heads * d) the layer's keys as cached, rotated; text_keys (A, heads * d)
    inputs         (T, E) visual tokens at the decoder's input; text_inputs (A, E)
    cls_attention  (T,) mean over heads of the vision tower's CLS attention, if it was given
    norm           the decoder's final norm, for (..., E)

    Floating-point tensors are in the model's dtype.
    """

    source: Tensor
    position: Tensor
    hidden: Tensor
    tokens: Tensor
    text_hidden: Tensor
    keys: Tensor
    text_keys: Tensor
    inputs: Tensor
    text_inputs: Tensor
    cls_attention: Tensor | None
    norm: Callable[[Tensor], Tensor]
    _queries: Tensor  # (A, query heads, d), rotated
    _all_keys: Tensor  # (key heads, S, d), the whole sequence
    _text: Tensor  # (A,) places of the text tokens in it
    _visual: Tensor  # (V,) places of the visual tokens in it
    _scaling: float

    @property
    def places(self) -> Tensor:
        """(V,) int64 place of each visual token in the sequence of all tokens."""
        return self._visual

    @property
    def text_places(self) -> Tensor:
        """(A,) int64 place of each text token in the sequence of all tokens."""
        return self._text

    def attention(self, rows: Tensor | None = None) -> Tensor:
        """(R, V) float64 attention from the text tokens `rows`, or all, to the visual tokens.

        The result is the mean over heads. The softmax is over all tokens that a row sees.
        """
        queries, text = self._queries, self._text
        if rows is not None:
            queries, text = queries[rows], text[rows]
        keys = self._all_keys.double()
        # Query head h reads key head h // group.
        grouped = queries.double().unflatten(1, (len(keys), -1))
        scores = torch.einsum("rkgd,knd->kgrn", grouped, keys) * self._scaling
        later = torch.arange(keys.shape[1], device=text.device) > text[:, None]
        weights = scores.masked_fill(later, -torch.inf).softmax(dim=-1)
        return weights.mean(dim=(0, 1))[:, self._visual]

    def attention_macs(self, rows: int) -> int:
        """Multiply-adds of `attention` for so many rows."""
        return rows * self._queries[0].numel() * self._all_keys.shape[1]


def rotate(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Apply Llama's and Qwen's rotary embedding: `states` (A, heads, d), `cos`, `sin` (A, d)."""
    first, second = states.chunk(2, dim=-1)
    turned = torch.cat([-second, first], dim=-1)
    return states * cos[:, None] + turned * sin[:, None]
