"""Greedy answers of one arm: one prefill per image, all of its questions on that cache.

The answers are those of the model's own `generate()` on one question at a time. Neither the batch
size nor the other questions of a batch change them (up to ties within rounding).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from prunesid.core.memory import Halving
from prunesid.core.questions import Answer, Question, Stopping
from prunesid.core.record import Kept
from prunesid.families.adapter import (
    Entering,
    Prompt,
    around,
    kept_crops,
    positions_of,
)
from prunesid.generate.batches import block_size, image_numbers
from prunesid.generate.decoding import Asked, Inputs, check_inputs, decode, prepare
from prunesid.generate.prefix import prefix_owners
from prunesid.images.medium import Medium

if TYPE_CHECKING:
    from prunesid.families.base import Adapter

# Most question tokens of one image in one pass: attention grows with the square of a row.
PACKED_TOKENS = 512


@dataclass(frozen=True)
class _Group:
    """Questions that share an input and the text before its media.

    name    the input
    number  number of its image
    before  the text before each medium
    tokens  number of visual tokens kept
    packs   the questions, cut by `_fill`
    """

    name: str
    number: int
    before: tuple[tuple[int, ...], ...]
    tokens: int
    packs: tuple[tuple[Asked, ...], ...]

    @property
    def size(self) -> tuple[int, int]:
        """Prefix tokens and packs; batches hold groups of similar size."""
        return self.tokens + sum(map(len, self.before)), len(self.packs)


@torch.inference_mode()
def answer(
    adapter: Adapter,
    kept: Kept,
    inputs: Inputs,
    questions: Sequence[Question],
    *,
    batch_size: int = 16,
    halving: Halving | None = None,
    progress: Callable[[int], object] | None = None,
) -> list[Answer]:
    """Answers in the order of `questions`.

    kept        the visual tokens (R, N, D) of the R crops of `inputs`
    inputs      named by the questions' `shown`
    batch_size  inputs per batch
    halving     what of a batch fits into memory, if several calls share what is known of that
    progress    called with the number of questions answered since its last call

    ValueError on an image that is not in `inputs` or generation arguments that ask for sampling.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, not {batch_size}")
    check_inputs(kept, inputs, questions)
    found: list[tuple[str, int, int]] = [("", 0, 0)] * len(questions)
    halving = halving or Halving("inputs to answer on")
    work = partial(_answer_batch, adapter, kept, inputs)
    for batch in _batches(_group(adapter, questions, inputs, kept.count.tolist()), batch_size):
        for part in halving.run(batch, work):
            for place, text, tokens, between in part:
                found[place] = text, tokens, between
        if progress is not None:
            progress(sum(len(asked) for group in batch for asked in group.packs))
    return [
        Answer(
            question.id,
            question.image_id,
            text,
            tokens,
            text=_prompt(adapter, question, inputs[question.shown]).text_tokens + between,
        )
        for question, (text, tokens, between) in zip(questions, found, strict=True)
    ]


def answer_plainly(
    adapter: Adapter, kept: Kept, media: Sequence[Medium], question: Question
) -> str:
    """One answer by the model's own `generate()` on the kept tokens, with no shared prefix."""
    stopping = Stopping.of(question.gen_kwargs)
    prompt = _prompt(adapter, question, media)
    ids = adapter.generate(enter(adapter, kept, media), prompt, stopping.max_new_tokens)
    return stopping.cut(adapter.decode(ids))


def _prompt(adapter: Adapter, question: Question, media: Sequence[Medium]) -> Prompt:
    return adapter.prompt(question.context, [medium.kind for medium in media])


def enter(adapter: Adapter, kept: Kept, media: Sequence[Medium]) -> list[Entering]:
    """The embeddings that enter the language model for an input's media, in order."""
    return [
        part for medium in media for part in adapter.parts(kept_crops(kept, medium), medium.layout)
    ]


def _group(
    adapter: Adapter, questions: Sequence[Question], inputs: Inputs, counts: Sequence[int]
) -> list[_Group]:
    members: dict[tuple[str, tuple[tuple[int, ...], ...]], list[Asked]] = {}
    for place, question in enumerate(questions):
        before, asked = prepare(adapter, place, question, inputs[question.shown])
        members.setdefault((question.shown, before), []).append(asked)
    places = image_numbers(inputs, questions)
    tokens = {
        name: sum(counts[row] for medium in media for row in medium.rows)
        for name, media in inputs.items()
    }
    return [
        _Group(name, places[name], before, tokens[name], _fill(asked))
        for (name, before), asked in members.items()
    ]


def _batches(groups: Sequence[_Group], batch_size: int) -> Iterator[list[_Group]]:
    """Batches of groups of one block (`prunesid.generate.batches`), sorted to save padding."""
    blocks: dict[int, list[_Group]] = {}
    for group in groups:
        blocks.setdefault(group.number // block_size(batch_size), []).append(group)
    for _, own in sorted(blocks.items()):
        # A stable sort keeps the inputs of one image in their order.
        own.sort(key=lambda group: (*group.size, group.number))
        for start in range(0, len(own), batch_size):
            yield own[start : start + batch_size]


def _fill(asked: Sequence[Asked]) -> tuple[tuple[Asked, ...], ...]:
    """An image's questions in packs of at most PACKED_TOKENS tokens, or of one longer question."""
    packs: list[list[Asked]] = []
    room = 0
    for question in asked:
        if len(question.after) > room or not packs:
            packs.append([])
            room = PACKED_TOKENS
        packs[-1].append(question)
        room -= len(question.after)
    return tuple(tuple(one) for one in packs)


@dataclass(frozen=True, eq=False)
class _Prefix:
    """Everything up to the last visual token of an input.

    embeddings  (S, E)
    positions   (3, S) rotary positions, or None if they are 0..S-1
    following   position of the next token
    visual      number of visual tokens
    between     number of text tokens within media
    """

    embeddings: Tensor
    positions: Tensor | None
    following: int
    visual: int
    between: int


def _prefix(
    adapter: Adapter, media: Sequence[Entering], prompt: Sequence[tuple[int, ...]]
) -> _Prefix:
    texts = around(prompt, media)
    parts = [adapter.embed(torch.zeros(0, dtype=torch.int64))]
    for text, own in zip(texts, media, strict=True):
        parts += [adapter.embed(torch.tensor(text, dtype=torch.int64)), own.embeddings]
    positions, following = positions_of(list(map(len, texts)), media)
    return _Prefix(
        torch.cat(parts),
        positions if any(own.positions is not None for own in media) else None,
        following,
        visual=sum(map(len, media)),
        between=sum(len(own.before) for own in media),
    )


def _answer_batch(
    adapter: Adapter, kept: Kept, inputs: Inputs, groups: Sequence[_Group]
) -> list[tuple[int, str, int, int]]:
    """(place, answer, visual tokens, text within media) of every question of the groups."""
    cache = adapter.new_cache()
    prefixes = [
        _prefix(adapter, enter(adapter, kept, inputs[group.name]), group.before) for group in groups
    ]
    lengths = [len(prefix.embeddings) for prefix in prefixes]
    if max(lengths):
        # Padding stands on the right, so the plain causal mask already hides it.
        adapter.run(
            pad_sequence([prefix.embeddings for prefix in prefixes], batch_first=True),
            cache,
            positions=_positions(prefixes, adapter.device),
        )
    owners = prefix_owners(lengths)
    following = [prefix.following for prefix in prefixes]
    found = []
    for turn in range(max(len(group.packs) for group in groups)):
        asked = [group.packs[turn] if turn < len(group.packs) else () for group in groups]
        spent, answers = decode(adapter, cache, owners, following, asked)
        found += answers
        cache.crop(-spent)
    shown = {
        asked.place: (prefix.visual, prefix.between)
        for group, prefix in zip(groups, prefixes, strict=True)
        for pack in group.packs
        for asked in pack
    }
    return [(place, text, *shown[place]) for place, text in found]


def _positions(prefixes: Sequence[_Prefix], device: torch.device) -> Tensor | None:
    """(3, B, S) rotary positions, or None if all inputs' positions are their columns."""
    if all(prefix.positions is None for prefix in prefixes):
        return None
    own = [
        torch.arange(len(prefix.embeddings)).expand(3, -1)
        if prefix.positions is None
        else prefix.positions
        for prefix in prefixes
    ]
    return pad_sequence([each.T for each in own], batch_first=True).permute(2, 0, 1).to(device)
