"""Greedy answers of an arm that drops tokens inside the language model.

The question decides which tokens stay, so each question is a row of its own. Up to the first stage
the questions of an image share their prefix. Neither the batch size nor the other questions of a
batch change an answer (up to ties within rounding).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from prunesid.core.faults import blamed
from prunesid.core.memory import Halving
from prunesid.core.questions import Answer, Question
from prunesid.core.record import Kept
from prunesid.families.adapter import Entering, around, positions_of
from prunesid.generate.batches import block_size
from prunesid.generate.columns import AFTER, BEFORE, GONE, VISUAL, Columns
from prunesid.generate.decoder_pass import Prefilled, prefill_shared, rotary_axes
from prunesid.generate.decoding import Asked, Inputs, check_inputs, ends, prepare
from prunesid.generate.engine import enter
from prunesid.images.medium import Medium
from prunesid.methods.decoder import DecoderShape, Schedule, plan, without_needs
from prunesid.methods.registry import requirements

if TYPE_CHECKING:
    from prunesid.families.base import Adapter


@dataclass(frozen=True)
class LateAnswers:
    """Answers of Q questions in their order, and what `prunesid.core.costs.account` asks for.

    The decoder has L layers. An answer's `tokens` are the mean of its row of `entering`.

    entering        (Q, L) int64 visual tokens entering each layer, merged ones included
    cached          (Q, L) int64 visual tokens in each layer's KV cache when decoding starts
    text            (Q,) int64 other tokens of the prompt
    selection_macs  (Q,) int64 multiply-adds of choosing tokens
    """

    answers: list[Answer]
    entering: Tensor
    cached: Tensor
    text: Tensor
    selection_macs: Tensor


@dataclass(frozen=True)
class _Row:
    """One question and its visual input.

    image    name of the input
    block    number of the input's block
    media    number of media in the input
    visual   number of visual tokens
    between  number of text tokens within media
    before   the text before each medium
    asked    the question
    """

    image: str
    block: int
    media: int
    visual: int
    between: int
    before: tuple[tuple[int, ...], ...]
    asked: Asked

    @property
    def text(self) -> int:
        """Number of tokens of the prompt that are not visual."""
        return sum(map(len, self.before)) + self.between + len(self.asked.after)


@dataclass(frozen=True, eq=False)
class _Part:
    """Some rows and their answers, and as in `LateAnswers` what enters and is cached.

    left  (B, V) int64 how many layers each visual token enters
    """

    rows: Sequence[_Row]
    texts: list[str]
    entering: Tensor
    cached: Tensor
    left: Tensor
    selection_macs: Tensor


@torch.inference_mode()
def answer_late(
    adapter: Adapter,
    kept: Kept,
    inputs: Inputs,
    questions: Sequence[Question],
    method: str,
    *,
    budget: int | None,
    params: Mapping[str, object] | None = None,
    cls_attention: Tensor | None = None,
    mode: str = "latency",
    batch_size: int = 16,
    halving: Halving | None = None,
    progress: Callable[[int], object] | None = None,
) -> LateAnswers:
    """Answers in the order of `questions`.

    kept           the visual tokens (R, N, D) that enter the language model: all
                   (`ImageRecords.all_tokens`), or fewer if an early method runs first
    inputs         the inputs of the R crops, each any number of images or clips
    method, budget, params  as in `prunesid.methods.decoder.plan`. The budget is per image or clip;
                   the media of a question share the sum. An input with no more tokens keeps all
    cls_attention  (R, N) the record's `last_cls_attention` of the kept tokens, for methods that
                   need it; 0 for tokens without a patch
    mode           "latency" or "accuracy" (`prunesid.generate.decoder_pass`); both answer alike
    batch_size     questions per batch
    halving        what of a batch fits into memory, if several calls share what is known of that
    progress       called with the number of questions answered since its last call

    ValueError as `plan` raises it, on an image that is not in `inputs`, and on generation arguments
    that ask for sampling. Also if the method needs CLS attention and none is given, or tokens other
    than the kept ones enter.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, not {batch_size}")
    check_inputs(kept, inputs, questions)
    given = dict(params or {})
    reads = requirements(method, **given).last_cls_attention
    if reads and cls_attention is None:
        raise ValueError(f"{method} needs cls_attention{without_needs(method, **given)}")
    depth = len(adapter.decoder.layers)
    rows, patches = _rows(adapter, kept, inputs, questions, block_size(batch_size))
    attention = None
    if reads and cls_attention is not None:
        try:
            attention = _by_image(adapter, cls_attention, kept, inputs, rows)
        except ValueError as error:
            raise ValueError(f"{method}: {error}{without_needs(method, **given)}") from error
    texts = [""] * len(questions)
    left: list[tuple[bytes, ...] | None] = [None] * len(questions)
    entering = torch.zeros(len(questions), depth, dtype=torch.int64)
    found = LateAnswers(
        answers=[],
        entering=entering,
        cached=torch.zeros_like(entering),
        text=torch.zeros_like(entering[:, 0]),
        selection_macs=torch.zeros_like(entering[:, 0]),
    )
    axes = rotary_axes(adapter.decoder)
    kinds = {(row.media, row.visual) for row in rows}
    # All plans before any answer, the one with most tokens per medium first.
    schedules = {
        (media, tokens): plan_media(method, DecoderShape(depth, tokens, axes), media, budget, given)
        for media, tokens in sorted(kinds, key=lambda kind: -kind[1] / max(1, kind[0]))
    }
    halving = halving or Halving("questions to answer")
    for (_, *kind), same in groupby(rows, key=lambda row: (row.block, row.media, row.visual)):
        members, (media, tokens) = list(same), kind
        schedule = schedules[media, tokens]

        def work(some: Sequence[_Row], schedule: Schedule = schedule) -> _Part:
            with blamed(partial(_whose, method, some, questions)):
                return _answer_batch(adapter, kept, inputs, some, schedule, mode, attention)

        for start in range(0, len(members), batch_size):
            batch = members[start : start + batch_size]
            for part in halving.run(batch, work):
                places = [row.asked.place for row in part.rows]
                for row, text, own in zip(part.rows, part.texts, part.left, strict=True):
                    texts[row.asked.place] = text
                    left[row.asked.place] = _per_patch(patches[row.image], own)
                found.entering[places] = part.entering
                found.cached[places] = part.cached
                found.selection_macs[places] = part.selection_macs
                found.text[places] = torch.tensor([row.text for row in part.rows])
            if progress is not None:
                progress(len(batch))
    means = found.entering.double().mean(dim=1).tolist()
    found.answers.extend(
        Answer(
            question.id,
            question.image_id,
            text,
            means[place],
            text=int(found.text[place]),
            entering=tuple(found.entering[place].tolist()),
            cached=tuple(found.cached[place].tolist()),
            selection_macs=int(found.selection_macs[place]),
            left=left[place],
        )
        for place, (question, text) in enumerate(zip(questions, texts, strict=True))
    )
    return found


def _whose(
    method: str, batch: Sequence[_Row], questions: Sequence[Question], row: int | None
) -> str:
    if row is None:
        return method
    question = questions[batch[row].asked.place]
    return f"{method} on question {question.id}, image {question.image_id!r}"


def plan_media(
    method: str, shape: DecoderShape, media: int, budget: int | None, params: Mapping[str, object]
) -> Schedule:
    """`prunesid.methods.decoder.plan` for a question on `media` media, each with the budget."""
    if not shape.tokens:
        return Schedule()
    try:
        return plan(method, shape, None if budget is None else budget * media, **params)
    except ValueError as error:
        if media == 1:
            raise
        raise ValueError(f"{media} images or clips, whose budgets add up: {error}") from None


def _rows(
    adapter: Adapter, kept: Kept, inputs: Inputs, questions: Sequence[Question], size: int
) -> tuple[list[_Row], dict[str, _Patches | None]]:
    """The questions by block of `size` inputs, by numbers of media and tokens, and by input.

    And for each input where its tokens come from; None if from no patch, or from several each.
    """
    places = {name: number for number, name in enumerate(inputs)}
    shown: dict[str, tuple[int, int]] = {}
    patches: dict[str, _Patches | None] = {}
    rows = []
    for place, question in enumerate(questions):
        name = question.shown
        media = inputs[name]
        before, asked = prepare(adapter, place, question, media)
        if name not in shown:
            parts = enter(adapter, kept, media)
            shown[name] = sum(map(len, parts)), sum(len(part.before) for part in parts)
            patches[name] = _patches(kept, media, parts)
        rows.append(_Row(name, places[name] // size, len(media), *shown[name], before, asked))
    rows.sort(key=lambda row: (row.block, row.media, row.visual, places[row.image], row.before))
    return rows, patches


def _by_image(
    adapter: Adapter, attention: Tensor, kept: Kept, inputs: Inputs, rows: Iterable[_Row]
) -> dict[str, Tensor]:
    """CLS attention (R, N) of the kept tokens -> {image: (V,) of the tokens that enter}.

    ValueError as in `entering_attention`.
    """
    return {
        image: entering_attention(
            attention, kept, inputs[image], enter(adapter, kept, inputs[image]), f"image {image!r}"
        )
        for image in dict.fromkeys(row.image for row in rows)
    }


def entering_attention(
    attention: Tensor, kept: Kept, media: Sequence[Medium], parts: Sequence[Entering], owner: str
) -> Tensor:
    """CLS attention (R, N) of the kept tokens -> (V,) of the tokens that enter.

    0 for newlines and text, which have none.

    parts  what enters for `media`
    owner  the prompt or image, for the message

    ValueError if kept tokens do not enter one by one.
    """
    found = _one_by_one(attention, kept, media, parts, 0)
    if found is None:
        made = sum(int(kept.count[row]) for medium in media for row in medium.rows)
        raise ValueError(
            f"{owner} enters as {sum(map(len, parts))} tokens made of {made}, which have no CLS "
            "attention of their own"
        )
    return found


def _one_by_one(
    values: Tensor, kept: Kept, media: Sequence[Medium], parts: Sequence[Entering], none: int
) -> Tensor | None:
    """Values (R, N) of the kept tokens -> (V,) of the tokens that enter, `none` for other tokens.

    None if kept tokens do not enter one by one.
    """
    of_medium: list[list[Entering]] = []
    for part in parts:
        if part.continues:
            of_medium[-1].append(part)
        else:
            of_medium.append([part])
    found = [values.flatten()[:0]]
    for medium, own in zip(media, of_medium, strict=True):
        entering = torch.cat([values[row, : int(kept.count[row])] for row in medium.rows])
        source = own[0].source
        if source is not None:
            entering = entering[source].masked_fill(source < 0, none)
        elif sum(map(len, own)) != len(entering):
            return None
        found.append(entering)
    return torch.cat(found)


@dataclass(frozen=True, eq=False)
class _Patches:
    """Where the visual tokens of an input come from.

    number  (V,) int64 patch of each token among those of all crops in a row, -1 for none
    sizes   patches of each crop, up to the last one kept
    """

    number: Tensor
    sizes: tuple[int, ...]


def _patches(kept: Kept, media: Sequence[Medium], parts: Sequence[Entering]) -> _Patches | None:
    """Those of the `media` of which `parts` enter; None if each is of no patch, or of several."""
    patch = _one_by_one(kept.index, kept, media, parts, -1)
    if patch is None or bool((patch < 0).all()):
        return None
    crops = [row for medium in media for row in medium.rows]
    sizes = kept.index.masked_fill(~kept.mask, -1)[crops].amax(dim=1).clamp(min=-1) + 1
    first = torch.zeros(len(kept), dtype=torch.int64, device=sizes.device)
    first[crops] = sizes.cumsum(0) - sizes
    first = first[:, None].expand_as(kept.index)
    start = _one_by_one(first, kept, media, parts, 0)
    assert start is not None
    number = torch.where(patch < 0, -1, start + patch)
    return _Patches(number.cpu(), tuple(sizes.tolist()))


def _per_patch(patches: _Patches | None, left: Tensor) -> tuple[bytes, ...] | None:
    """`Answer.left` of a question, of whose visual tokens `left` (V,) is known."""
    if patches is None:
        return None
    real = patches.number >= 0
    found = torch.zeros(sum(patches.sizes), dtype=torch.uint8)
    found[patches.number[real]] = left[: len(real)][real].to(torch.uint8)
    return tuple(bytes(own.tolist()) for own in found.split(patches.sizes))


def _answer_batch(
    adapter: Adapter,
    kept: Kept,
    inputs: Inputs,
    batch: Sequence[_Row],
    schedule: Schedule,
    mode: str,
    cls_attention: Mapping[str, Tensor] | None,
) -> _Part:
    prefixes = list(dict.fromkeys((row.image, row.before) for row in batch))
    owner = [prefixes.index((row.image, row.before)) for row in batch]
    prefix, following = _prefixes(
        adapter, [(enter(adapter, kept, inputs[image]), before) for image, before in prefixes]
    )
    texts = [torch.tensor(row.asked.after, dtype=torch.int64) for row in batch]
    kinds = [torch.full_like(each, AFTER) for each in texts]
    attention = None
    if cls_attention is not None and batch[0].media:
        attention = torch.stack([cls_attention[row.image] for row in batch]).to(adapter.device)
    state = prefill_shared(
        adapter.decoder,
        prefix,
        following,
        torch.tensor(owner, device=adapter.device),
        adapter.embed(pad_sequence(texts, batch_first=True)),
        pad_sequence(kinds, batch_first=True, padding_value=GONE).to(adapter.device),
        schedule,
        mode=mode,
        cls_attention=attention,
    )
    answered = _decode(adapter, state, [row.asked for row in batch])
    # Nothing of the caches goes on: they are as large as the batch allows.
    return _Part(
        batch,
        answered,
        state.entering.cpu(),
        state.cached.cpu(),
        state.left,
        state.selection_macs,
    )


def _prefixes(
    adapter: Adapter, shown: Sequence[tuple[Sequence[Entering], Sequence[tuple[int, ...]]]]
) -> tuple[Columns, Tensor]:
    """Columns of P prompts up to the last visual token, and (P,) rotary positions of the next one.

    `shown` holds each prompt's media and the text before each. Prompts are padded on the right.
    """
    hidden, kinds, positions, following = [], [], [], []
    for media, prompt in shown:
        texts = around(prompt, media)
        parts = [adapter.embed(torch.zeros(0, dtype=torch.int64))]
        kind: list[int] = []
        for text, medium in zip(texts, media, strict=True):
            parts += [adapter.embed(torch.tensor(text, dtype=torch.int64)), medium.embeddings]
            kind += [BEFORE] * len(text) + [VISUAL] * len(medium)
        own, place = positions_of(list(map(len, texts)), media)
        hidden.append(torch.cat(parts))
        kinds.append(torch.tensor(kind, dtype=torch.int64))
        positions.append(own[: rotary_axes(adapter.decoder)].T)
        following.append(place)
    columns = Columns.of(
        pad_sequence(hidden, batch_first=True),
        pad_sequence(kinds, batch_first=True, padding_value=GONE).to(adapter.device),
        pad_sequence(positions, batch_first=True).to(adapter.device),
    )
    return columns, torch.tensor(following, device=adapter.device)


def _decode(adapter: Adapter, state: Prefilled, asked: Sequence[Asked]) -> list[str]:
    """Greedy answers; complete rows run on until all are complete."""
    texts: list[list[int]] = [[] for _ in asked]
    complete = [False] * len(asked)
    hidden = state.last
    while True:
        chosen = adapter.logits(hidden).argmax(-1).tolist()
        for row, (question, token) in enumerate(zip(asked, chosen, strict=True)):
            if not complete[row]:
                complete[row] = ends(adapter, question, texts[row], token)
        if all(complete):
            break
        hidden = state.advance(adapter.embed(torch.tensor(chosen)))
    return [
        question.stopping.cut(adapter.decode(text))
        for question, text in zip(asked, texts, strict=True)
    ]
