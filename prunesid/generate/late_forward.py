"""A transformers decoder that drops visual tokens inside the model's own `generate`.

Within `dropping`, the decoder's forward pass is that of `prunesid.generate.decoder_pass`. Prompts
run by their schedules, and transformers gets a cache of the tokens left in each layer. Sampling,
beam search and stopping remain those of transformers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence
from transformers.cache_utils import DynamicCache
from transformers.modeling_outputs import BaseModelOutputWithPast

from prunesid.core.faults import blamed
from prunesid.families.adapter import Entering
from prunesid.generate.columns import AFTER, BEFORE, GONE, VISUAL, Columns
from prunesid.generate.decoder_pass import Prefilled, prefill, rotary_axes
from prunesid.generate.late import entering_attention, plan_media
from prunesid.images.medium import Medium
from prunesid.images.records import ImageRecords
from prunesid.methods.decoder import DecoderShape, Schedule
from prunesid.methods.registry import requirements


@dataclass(frozen=True, eq=False)
class Prompts:
    """B prompts of S tokens, as the model gets them, for a method inside the language model.

    visual         (B, S) bool, the placeholders of visual tokens
    tokens         (V, E + X) all visual tokens, prompt by prompt; later layers add the X channels
    schedules      B schedules
    cls_attention  (B, T) as in `prefill`; T is the largest number of visual tokens of a prompt
    """

    method: str
    visual: Tensor
    tokens: Tensor
    schedules: Sequence[Schedule]
    cls_attention: Tensor | None = None


class DroppedCache(DynamicCache):
    """A cache whose layers hold different tokens; its length is that of the full prompt."""

    def __init__(self, state: Prefilled, width: int) -> None:
        super().__init__()
        self.state, self._width = state, width

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self._width + self.state.steps

    def reorder_cache(self, beam_idx: Tensor) -> None:
        self.state.select_rows(beam_idx)


def late_prompts(
    decoder: Any,
    method: str,
    budget: int,
    params: Mapping[str, object],
    visual: Tensor,
    rows: Sequence[Sequence[tuple[Entering, Medium]]],
    records: ImageRecords,
) -> Prompts:
    """The prompts of a method inside the language model, which all tokens enter.

    budget  mean over the decoder's layers, per medium
    visual  (B, S) bool, the placeholders
    rows    for each prompt what enters, in order, and the medium that it is (a part) of

    ValueError as `plan` raises it.
    """
    depth, axes = len(decoder.layers), rotary_axes(decoder)
    widths = [sum(len(part) for part, _ in row) for row in rows]
    schedules = [
        plan_media(
            method,
            DecoderShape(depth, width, axes),
            sum(not part.continues for part, _ in row),
            budget,
            params,
        )
        for row, width in zip(rows, widths, strict=True)
    ]
    tokens = torch.cat([part.embeddings for row in rows for part, _ in row])
    if not requirements(method, **params).last_cls_attention:
        return Prompts(method, visual, tokens, schedules)
    whole = records.all_tokens()
    attention = records.gather(whole.index, "last_cls_attention")
    own = [
        entering_attention(
            attention,
            whole,
            # A medium in several parts counts once.
            [medium for part, medium in row if not part.continues],
            [part for part, _ in row],
            f"prompt {number}",
        )
        for number, row in enumerate(rows)
    ]
    return Prompts(method, visual, tokens, schedules, pad_sequence(own, batch_first=True))


@contextmanager
def dropping(decoder: Any, prompts: Prompts) -> Iterator[None]:
    """Within the block, `decoder`, a text model of transformers, runs `prompts` by their schedules.

    A call raises ValueError for what such a pass cannot do: return attentions or hidden states of
    all layers, take several new tokens at once, or run a prompt without text after its images.
    """

    def forward(
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        **given: Any,
    ) -> BaseModelOutputWithPast:
        wanted = [n for n in ("output_attentions", "output_hidden_states") if given.get(n)]
        if wanted:
            raise ValueError(f"{', '.join(wanted)}: layers see different tokens here")
        if inputs_embeds is None:
            inputs_embeds = decoder.embed_tokens(input_ids)
        if isinstance(past_key_values, DroppedCache):
            if inputs_embeds.shape[1] != 1:
                raise ValueError("after the prompt, tokens come one at a time")
            new = _widened(inputs_embeds, prompts.tokens.shape[1])
            hidden = past_key_values.state.advance(new[:, 0])[:, None]
            return BaseModelOutputWithPast(hidden, past_key_values)
        columns = _columns(decoder, prompts, inputs_embeds, attention_mask, position_ids)
        # Beams and several sequences repeat each prompt.
        times = len(inputs_embeds) // len(prompts.visual)
        schedules = [each for each in prompts.schedules for _ in range(times)]
        attention = prompts.cls_attention
        if attention is not None:
            attention = attention.repeat_interleave(times, dim=0)
        with blamed(
            lambda row: prompts.method + ("" if row is None else f" on prompt {row // times}")
        ):
            state = prefill(decoder, columns, schedules, cls_attention=attention)
        hidden = _in_place(state.columns, columns)
        return BaseModelOutputWithPast(hidden, DroppedCache(state, hidden.shape[1]))

    before = vars(decoder).get("forward")
    decoder.forward = forward
    try:
        yield
    finally:
        if before is None:
            del decoder.forward
        else:
            decoder.forward = before


def _columns(
    decoder: Any,
    prompts: Prompts,
    embeddings: Tensor,
    mask: Tensor | None,
    position_ids: Tensor | None,
) -> Columns:
    """The prompts at the decoder's input; `embeddings` (B', S, E) may hold each several times."""
    rows, width = embeddings.shape[:2]
    device = embeddings.device
    visual = prompts.visual.to(device).repeat_interleave(rows // len(prompts.visual), dim=0)
    if visual.shape != (rows, width):
        raise ValueError(
            f"the decoder got {rows} prompts of {width} tokens instead of {tuple(visual.shape)}"
        )
    hidden = _widened(embeddings, prompts.tokens.shape[1])
    hidden[visual] = prompts.tokens[_repeated(prompts.visual, rows)].to(hidden)
    real = torch.ones_like(visual) if mask is None else mask.bool()
    order = torch.arange(width, device=device).expand(rows, -1)
    last = torch.where(visual, order, -1).amax(dim=1, keepdim=True)
    kind = torch.where(order > last, AFTER, BEFORE)
    kind = kind.masked_fill(visual, VISUAL).masked_fill(~real, GONE)
    if position_ids is None:
        position_ids = order
    axes = rotary_axes(decoder)
    if axes > 1:
        # The first of four is the position in the text, which the embedding does not use.
        position_ids = position_ids.expand(axes, -1, -1) if position_ids.ndim == 2 else position_ids
        position = position_ids[-axes:].permute(1, 2, 0)
    else:
        position = position_ids[:, :, None]
    return Columns.of(hidden, kind, position.expand(rows, -1, -1))


def _widened(embeddings: Tensor, width: int) -> Tensor:
    """(B, S, E) -> (B, S, width), a copy padded with 0: later layers add nothing to text."""
    return pad(embeddings, (0, width - embeddings.shape[2]), mode="constant").clone()


def _repeated(visual: Tensor, rows: int) -> Tensor:
    """Numbers of the visual tokens when each prompt is repeated, to `rows` prompts in all."""
    counts = visual.sum(dim=1).tolist()
    each = torch.arange(sum(counts)).split(counts)
    return torch.cat([own.repeat(rows // len(counts)) for own in each])


def _in_place(final: Columns, prompts: Columns) -> Tensor:
    """(B, S, E) final hidden states at the prompts' columns, 0 for dropped and merged tokens."""
    found = prompts.hidden.new_zeros(*prompts.kind.shape, final.hidden.shape[2])
    for row in range(len(prompts)):
        for kind in (BEFORE, AFTER):
            found[row, prompts.row(row, kind)] = final.hidden[row, final.row(row, kind)]
        visual, source = prompts.row(row, VISUAL), final.source[row, final.row(row, VISUAL)]
        kept = source >= 0
        found[row, visual[source[kept]]] = final.hidden[row, final.row(row, VISUAL)[kept]]
    return found
