"""A decoder run layer by layer, with visual tokens dropped where a schedule says so.

    state = prefill(model.model, Columns.of(embeddings, kind), plan("fastv", shape, 192))
    logits = model.lm_head(state.last)
    hidden = state.advance(model.model.embed_tokens(logits.argmax(-1)))

Two modes give the same answers:
  accuracy  dropped tokens stay as columns that no query sees
  latency   dropped tokens are removed, so that sequences and KV caches get shorter layer by layer.
            Shorter rows of a batch are padded on the right; measure time with batches of one

The decoder must be built like Llama and Qwen2, with `layers`, `rotary_emb`, `norm` and full causal
attention. In transformers these are `LlamaModel`, `Qwen2Model`, `MistralModel`, `Qwen3Model`, and
with M-RoPE `Qwen2VLTextModel`, `Qwen2_5_VLTextModel` and `Qwen3VLTextModel`. Nothing is patched.
The layers keep their attention implementation, which must take additive masks (SDPA or eager) if a
batch is ragged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from prunesid.core.faults import MethodError, said
from prunesid.core.hooks import outputs
from prunesid.core.registry import unknown
from prunesid.generate.cache import LayerCaches
from prunesid.generate.columns import AFTER, GONE, VISUAL, Columns, additive, causal_mask, pruned
from prunesid.methods.decoder.outcome import check_choices
from prunesid.methods.decoder.schedule import Choice, Schedule, Stage, check_positions
from prunesid.methods.decoder.view import View, rotate

MODES = ("latency", "accuracy")


@dataclass(frozen=True, eq=False)
class Segment:
    """Consecutive layers that see the same tokens.

    columns    the prompts' columns in the caches of these layers, without hidden states
    following  (B, 1, P) int64 rotary positions of the first new token
    """

    layers: range
    columns: Columns
    following: Tensor


class Prefilled:
    """Prompts in the decoder's caches, ready for new tokens.

    last             (B, E) final hidden state of each prompt's last token, for the output layer
    columns          the columns that left the last layer, `hidden` after the final norm
    entering         (B, L) int64 visual tokens entering each layer, merged ones included
    cached           (B, L) int64 visual tokens in each layer's cache when decoding starts
    kept             for each stage and prompt, the sources of the tokens kept, (k,) int64
    drops            for each stage, the layer after which it drops tokens
    selection_macs   (B,) int64 multiply-adds of choosing tokens
    """

    def __init__(
        self,
        decoder: Any,
        cache: LayerCaches,
        segments: Sequence[Segment],
        final: Columns,
        entering: Tensor,
        kept: list[list[Tensor]],
        drops: Sequence[int],
        selection_macs: Tensor,
    ) -> None:
        self._decoder = decoder
        self._steps = 0
        self.cache = cache
        self.segments = list(segments)
        self.entering = entering
        self.kept = kept
        self.drops = drops
        self.selection_macs = selection_macs
        self.cached = _counts(segments)
        self.columns = replace(final, hidden=decoder.norm(_states(decoder, final.hidden)))
        rows = torch.arange(len(final), device=final.kind.device)
        self.last = self.columns.hidden[rows, _last_text(final)]

    @property
    def left(self) -> Tensor:
        """(B, V) int64 how many layers each of the V visual tokens of the input enters."""
        depth, tokens = len(self._decoder.layers), int(self.entering[:, 0].max())
        found = torch.full((len(self.entering), tokens), depth)
        for after, stage in zip(self.drops, self.kept, strict=True):
            for row, own in enumerate(stage):
                gone = torch.ones(tokens, dtype=torch.bool)
                gone[own[own >= 0].cpu()] = False
                found[row, gone] = found[row, gone].clamp(max=after + 1)
        return found

    @torch.no_grad()
    def advance(self, embeddings: Tensor) -> Tensor:
        """Run one new token per prompt, (B, E + X), and return its final hidden state, (B, E)."""
        hidden = embeddings[:, None]
        for segment in self.segments:
            position = segment.following + self._steps
            seen = segment.columns.seen
            mask = None
            if not bool(seen.all()):
                new = seen.new_ones(len(seen), self._steps + 1)
                mask = additive(torch.cat([seen, new], dim=1)[:, None], hidden.dtype)
            hidden = _run(self._decoder, hidden, position, mask, self.cache, segment.layers)
        self._steps += 1
        return self._decoder.norm(_states(self._decoder, hidden))[:, 0]

    @property
    def steps(self) -> int:
        """Number of new tokens per prompt so far."""
        return self._steps

    def select_rows(self, rows: Tensor) -> None:
        """Replace prompt i by the former prompt `rows[i]`, for beam search."""
        self.cache.select_rows(rows)
        self.segments = [
            replace(each, columns=each.columns.rows(rows), following=each.following[rows])
            for each in self.segments
        ]


@torch.no_grad()
def prefill(
    decoder: Any,
    prompts: Columns,
    schedule: Schedule | Sequence[Schedule],
    *,
    mode: str = "latency",
    cls_attention: Tensor | None = None,
) -> Prefilled:
    """Run B prompts (`Columns.of`) of any padding through the decoder.

    schedule       one for all prompts, or B of one method. The schedule of a prompt that keeps
                   everything has no stages
    cls_attention  (B, T) the vision tower's CLS attention on each prompt's image, mean over heads,
                   for methods that read it

    ValueError on a decoder or mode that is not supported, on positions that do not fit the decoder,
    or on a prompt without text after the image.
    """
    stages = _Stages.of(schedule, len(prompts))
    _check(decoder, prompts, stages.positions, mode)
    cache = LayerCaches(len(decoder.layers))
    layers = _first_layers(decoder, stages)
    mask = causal_mask(prompts, prompts, prompts.hidden.dtype)
    with _queries(decoder, layers) as seen:
        hidden = _run(decoder, prompts.hidden, prompts.position, mask, cache, layers)
    columns = replace(prompts, hidden=hidden)
    return _continue(decoder, prompts, columns, seen["query"], cache, stages, mode, cls_attention)


@torch.no_grad()
def prefill_shared(
    decoder: Any,
    prefixes: Columns,
    following: Tensor,
    owner: Tensor,
    text: Tensor,
    kind: Tensor,
    schedule: Schedule | Sequence[Schedule],
    *,
    mode: str = "latency",
    cls_attention: Tensor | None = None,
) -> Prefilled:
    """`prefill` of B prompts that share P prefixes; each prefix runs once up to the first stage.

    prefixes   columns of everything before the text after the images
    following  (P,) int64 rotary position of the first token after each prefix
    owner      (B,) int64 number of each prompt's prefix
    text       (B, A, E + X) the text after the images
    kind       (B, A) int64, AFTER, or GONE for padding

    A prefix cannot depend on the question before the question decides which tokens stay.
    """
    # A text token has the same position on all axes.
    after = following[owner, None] + (kind != GONE).cumsum(dim=1) - 1
    axes = prefixes.position.shape[2]
    whole = Columns.of(
        hidden=torch.cat([prefixes.hidden[owner], text], dim=1),
        kind=torch.cat([prefixes.kind[owner], kind], dim=1),
        position=torch.cat(
            [prefixes.position[owner], after[:, :, None].expand(-1, -1, axes)], dim=1
        ),
    )
    stages = _Stages.of(schedule, len(whole))
    _check(decoder, whole, stages.positions, mode)
    cache = LayerCaches(len(decoder.layers))
    layers = _first_layers(decoder, stages)
    mask = causal_mask(prefixes, prefixes, text.dtype)
    before = _run(decoder, prefixes.hidden, prefixes.position, mask, cache, layers)
    cache.select_rows(owner)
    last = whole.since(prefixes.kind.shape[1])
    mask = causal_mask(last, whole, text.dtype)
    with _queries(decoder, layers) as seen:
        hidden = _run(decoder, last.hidden, last.position, mask, cache, layers)
    columns = replace(whole, hidden=torch.cat([before[owner], hidden], dim=1))
    return _continue(decoder, whole, columns, seen["query"], cache, stages, mode, cls_attention)


@dataclass(frozen=True)
class _Stages:
    """The schedules of B prompts, by layer.

    stages  for each layer after which a prompt drops tokens: its number and the stages of the B
            prompts, None for a prompt that keeps everything there
    """

    stages: tuple[tuple[int, tuple[Stage | None, ...]], ...]
    positions: str
    shrink_from: int | None

    @classmethod
    def of(cls, schedule: Schedule | Sequence[Schedule], rows: int) -> _Stages:
        """ValueError if the schedules differ in `positions` or `shrink_from`."""
        schedules = [schedule] * rows if isinstance(schedule, Schedule) else schedule
        dropping = [each for each in schedules if each.stages] or list(schedules[:1])
        treated = {(each.positions, each.shrink_from) for each in dropping}
        if len(treated) != 1:
            raise ValueError("the prompts of a batch need schedules of one method")
        ((positions, shrink_from),) = treated
        own = [{stage.after: stage for stage in each.stages} for each in schedules]
        layers = sorted(set().union(*own))
        stages = tuple((after, tuple(each.get(after) for each in own)) for after in layers)
        return cls(stages, positions, shrink_from)


def _choices(stages: Sequence[Stage | None], views: Sequence[View]) -> list[Choice]:
    """What each prompt keeps; MethodError with the number of a prompt if that cannot be."""
    found = []
    for row, (stage, view) in enumerate(zip(stages, views, strict=True)):
        try:
            chosen = Choice(torch.arange(len(view.source))) if stage is None else stage.choose(view)
        except (ImportError, torch.OutOfMemoryError):  # no prompt brings these about
            raise
        except Exception as error:  # a method may raise anything, and has to be named
            raise MethodError(said(error), row) from error
        found.append(chosen)
    check_choices(found, views, [None if stage is None else stage.leaves for stage in stages])
    return found


def _continue(
    decoder: Any,
    prompts: Columns,
    columns: Columns,
    queries: Tensor,
    cache: LayerCaches,
    schedule: _Stages,
    mode: str,
    cls_attention: Tensor | None,
) -> Prefilled:
    """The rest of a prefill, from the end of the first segment.

    `queries` are those of the segment's last layer, for all columns or the last of them.
    """
    depth = len(decoder.layers)
    segments = [_segment(_first_layers(decoder, schedule), columns)]
    kept: list[list[Tensor]] = []
    macs = torch.zeros(len(columns), dtype=torch.int64)
    for number, (after, stages) in enumerate(schedule.stages):
        views = [
            _view(decoder, prompts, columns, queries, cache, after, row, cls_attention)
            for row in range(len(columns))
        ]
        choices = _choices(stages, views)
        kept.append([v.source[c.keep] for v, c in zip(views, choices, strict=True)])
        macs += torch.tensor([choice.macs for choice in choices])
        columns = pruned(columns, choices, schedule.positions)
        if mode == "latency":
            columns = columns.gathered()
        later = schedule.stages[number + 1 :]
        layers = range(after + 1, later[0][0] + 1 if later else depth)
        mask = causal_mask(columns, columns, columns.hidden.dtype)
        with _queries(decoder, layers) as seen:
            hidden = _run(decoder, columns.hidden, columns.position, mask, cache, layers)
        queries = seen["query"]
        columns = replace(columns, hidden=hidden)
        segments.append(_segment(layers, columns))
    entering = _counts(segments)
    if schedule.shrink_from is not None:
        whole, rest = _cut(segments, schedule.shrink_from)
        segments = [*whole, *(_shrunk(each, columns, cache, mode) for each in rest)]
    drops = [after for after, _ in schedule.stages]
    return Prefilled(decoder, cache, segments, columns, entering, kept, drops, macs)


def _counts(segments: Sequence[Segment]) -> Tensor:
    """(B, L) visual tokens per layer."""
    counts = [each.columns.visual_count[:, None] for each in segments]
    spread = [n.expand(-1, len(each.layers)) for n, each in zip(counts, segments, strict=True)]
    return torch.cat(spread, dim=1)


def _first_layers(decoder: Any, schedule: _Stages) -> range:
    return range(schedule.stages[0][0] + 1 if schedule.stages else len(decoder.layers))


def _queries(decoder: Any, layers: range) -> Any:
    """A context that collects the queries of the last of `layers`, before rotary embedding."""
    attention = decoder.layers[layers[-1]].self_attn
    # Qwen3 normalizes each head's query and rotates the output of that norm.
    return outputs({"query": getattr(attention, "q_norm", attention.q_proj)})


def _run(
    decoder: Any,
    hidden: Tensor,
    position: Tensor,
    mask: Tensor | None,
    cache: LayerCaches,
    layers: range,
) -> Tensor:
    states, *later = hidden.split(decoder.config.hidden_size, dim=2)
    # Layers cannot run on zero tokens, as in the prefix of questions without an image.
    if not hidden.shape[1]:
        return torch.cat([states, *later[len(layers) :]], dim=2)
    rotary = _rotary(decoder, states, position)
    for number in layers:
        # No position_ids: flash attention would read gaps in them as several prompts.
        output = decoder.layers[number](
            states,
            attention_mask=mask,
            past_key_values=cache,
            use_cache=True,
            position_embeddings=rotary,
        )
        states = output[0] if isinstance(output, tuple) else output
        if later:
            states = states + later.pop(0)
    return torch.cat([states, *later], dim=2) if later else states


def _states(decoder: Any, hidden: Tensor) -> Tensor:
    """(..., E + X) as in `Columns` -> (..., E), without the channels for later layers."""
    return hidden[..., : decoder.config.hidden_size]


def _rotary(decoder: Any, hidden: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines (B, S, d), in the dtype of `hidden`, at positions (B, S, P)."""
    axes = position.permute(2, 0, 1)
    return decoder.rotary_emb(hidden, axes if len(axes) > 1 else axes[0])


def _segment(layers: range, columns: Columns) -> Segment:
    rows = torch.arange(len(columns), device=columns.kind.device)
    following = columns.position[rows, _last_text(columns)][:, None] + 1
    # A new tensor: a view would keep the hidden states of every segment in memory.
    empty = columns.hidden.new_empty(*columns.kind.shape, 0)
    return Segment(layers, replace(columns, hidden=empty), following)


def _last_text(columns: Columns) -> Tensor:
    """(B,) column of the last token of each row."""
    return columns.place.masked_fill(columns.kind != AFTER, -1).argmax(dim=1)


def _view(
    decoder: Any,
    prompts: Columns,
    columns: Columns,
    queries: Tensor,
    cache: LayerCaches,
    after: int,
    row: int,
    cls_attention: Tensor | None,
) -> View:
    attention = decoder.layers[after].self_attn
    whole, visual, text = columns.row(row), columns.row(row, VISUAL), columns.row(row, AFTER)
    keys = cache.held(after)[row]
    skipped = columns.kind.shape[1] - queries.shape[1]
    # Queries are rotated as in the layer: in its dtype, at its positions.
    tokens = columns.hidden[row]
    hidden, inputs = _states(decoder, tokens), _states(decoder, prompts.hidden[row])
    cos, sin = _rotary(decoder, hidden, columns.position[row, text][None])
    states = queries[row, text - skipped].reshape(len(text), -1, keys.shape[2])
    places = torch.empty_like(columns.place[row])
    places[whole] = torch.arange(len(whole), device=whole.device)
    return View(
        source=columns.source[row, visual],
        position=columns.position[row, visual],
        hidden=hidden[visual],
        tokens=tokens[visual],
        text_hidden=hidden[text],
        keys=keys[:, visual].transpose(0, 1).flatten(1),
        text_keys=keys[:, text].transpose(0, 1).flatten(1),
        inputs=inputs[prompts.row(row, VISUAL)],
        text_inputs=inputs[prompts.row(row, AFTER)],
        cls_attention=None if cls_attention is None else cls_attention[row],
        norm=decoder.norm,
        _queries=rotate(states, cos[0], sin[0]),
        _all_keys=keys[:, whole],
        _text=places[text],
        _visual=places[visual],
        _scaling=attention.scaling,
    )


def _cut(segments: Sequence[Segment], layer: int) -> tuple[list[Segment], list[Segment]]:
    """The segments of the layers before `layer`, and of the layers from it on."""
    before: list[Segment] = []
    after: list[Segment] = []
    for each in segments:
        place = min(max(layer, each.layers.start), each.layers.stop) - each.layers.start
        for layers, part in ((each.layers[:place], before), (each.layers[place:], after)):
            if layers:
                part.append(replace(each, layers=layers))
    return before, after


def _shrunk(segment: Segment, final: Columns, cache: LayerCaches, mode: str) -> Segment:
    """The segment without visual tokens that did not reach the last layer."""
    columns = segment.columns
    size = int(columns.source.max()) + 1
    stayed = torch.zeros(len(columns), size, dtype=torch.bool, device=columns.kind.device)
    for row in range(len(columns)):
        sources = final.source[row, final.row(row, VISUAL)]
        stayed[row, sources[sources >= 0]] = True
    original = (columns.kind == VISUAL) & (columns.source >= 0)
    left = columns.without(original & ~stayed.gather(1, columns.source.clamp(min=0)))
    if mode == "latency":
        order = left.order()
        for layer in segment.layers:
            cache.select_columns(layer, order)
        left = left.gathered()
    return replace(segment, columns=left)


def rotary_axes(decoder: Any) -> int:
    """Number of rotary positions of a token in this decoder: one, or three in M-RoPE."""
    return 3 if hasattr(decoder.rotary_emb, "mrope_section") else 1


def _check(decoder: Any, prompts: Columns, positions: str, mode: str) -> None:
    if mode not in MODES:
        raise ValueError(unknown("mode", mode, MODES))
    if not bool((prompts.kind == AFTER).any(dim=1).all()):
        raise ValueError("every prompt needs text after its image: it decides what stays")
    lacking = [name for name in ("layers", "rotary_emb", "norm") if not hasattr(decoder, name)]
    if lacking or not hasattr(decoder.layers[0].self_attn, "q_proj"):
        raise ValueError(f"{type(decoder).__name__} is not built like Llama or Qwen2: {lacking}")
    if "sliding_attention" in (getattr(decoder.config, "layer_types", None) or ()):
        raise ValueError("decoders with sliding-window attention are not supported")
    axes, given = rotary_axes(decoder), prompts.position.shape[2]
    if given != axes:
        raise ValueError(
            f"{type(decoder).__name__} rotates by {axes} positions per token; the prompts have "
            f"{given}"
        )
    check_positions(positions, axes)
