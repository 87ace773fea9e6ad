"""Greedy answers of one arm: one prefill per image, all its questions on that cache.

The answers are those of the model's own `generate()` asked one question at a time; neither the
batch size nor the company a question keeps changes them (up to ties within rounding).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch.nn.utils.rnn import pad_sequence

from prunesid.answering.decoding import Asked, decode, prepare, rows_of
from prunesid.answering.prefix import prefix_owners
from prunesid.answering.questions import Answer, Question, Stopping
from prunesid.models.adapter import Adapter
from prunesid.record import Kept, VisionRecord

# Question tokens of one image in one pass: attention inside a row grows with its square.
PACKED_TOKENS = 512


@dataclass(frozen=True)
class _Group:
    """Questions that share an image and the text before it."""

    row: int
    before: tuple[int, ...]
    tokens: int
    packs: tuple[tuple[Asked, ...], ...]

    @property
    def length(self) -> int:
        return len(self.before) + self.tokens


@torch.inference_mode()
def answer(
    adapter: Adapter,
    kept: Kept,
    image_ids: Sequence[str],
    questions: Sequence[Question],
    *,
    batch_size: int = 16,
    progress: Callable[[int], object] | None = None,
) -> list[Answer]:
    """Answers in the order of `questions`.

    `kept` holds the visual tokens (B, N, D) of the images named by `image_ids` (B); a batch takes
    `batch_size` images. `progress` is told the number of questions answered since the last call.
    ValueError on an image that is not in `image_ids`, or on generation arguments that ask for
    sampling.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, not {batch_size}")
    rows = rows_of(kept, image_ids, questions)
    texts = [""] * len(questions)
    counts = kept.count.tolist()
    groups = _group(adapter, questions, rows, counts)
    # Neighbors of like length waste the least padding.
    groups.sort(key=lambda group: (group.length, len(group.packs), group.row))
    for start in range(0, len(groups), batch_size):
        batch = groups[start : start + batch_size]
        for place, text in _answer_batch(adapter, kept, batch):
            texts[place] = text
        if progress is not None:
            progress(sum(len(asked) for group in batch for asked in group.packs))
    return [
        Answer(
            question.id,
            question.image_id,
            text,
            int(counts[rows[question.image_id]]),
            text=adapter.prompt(question.context).text_tokens,
        )
        for question, text in zip(questions, texts, strict=True)
    ]


def answer_plainly(adapter: Adapter, tokens: torch.Tensor, question: Question) -> str:
    """One answer by the model's own `generate()` on visual tokens (N, D); nothing is shared."""
    stopping = Stopping.of(question.gen_kwargs)
    ids = adapter.generate(tokens, adapter.prompt(question.context), stopping.max_new_tokens)
    return stopping.cut(adapter.decode(ids))


def all_tokens(record: VisionRecord) -> Kept:
    """The record's T tokens as they are: the arm without compression."""
    images, tokens, _ = record.features.shape
    index = torch.arange(tokens, device=record.features.device)
    return Kept(
        tokens=record.features,
        index=index.expand(images, tokens),
        count=torch.full_like(index[:1], tokens).expand(images),
    )


def _group(
    adapter: Adapter,
    questions: Sequence[Question],
    rows: dict[str, int],
    counts: Sequence[int],
) -> list[_Group]:
    members: dict[tuple[int, tuple[int, ...]], list[Asked]] = {}
    for place, question in enumerate(questions):
        before, asked = prepare(adapter, place, question)
        members.setdefault((rows[question.image_id], before), []).append(asked)
    return [
        _Group(row, before, counts[row], _fill(asked)) for (row, before), asked in members.items()
    ]


def _fill(asked: Sequence[Asked]) -> tuple[tuple[Asked, ...], ...]:
    """Cuts an image's questions into packs of at most PACKED_TOKENS tokens, one at the least."""
    packs: list[list[Asked]] = []
    room = 0
    for question in asked:
        if len(question.after) > room or not packs:
            packs.append([])
            room = PACKED_TOKENS
        packs[-1].append(question)
        room -= len(question.after)
    return tuple(tuple(one) for one in packs)


def _answer_batch(adapter: Adapter, kept: Kept, groups: Sequence[_Group]) -> list[tuple[int, str]]:
    cache = adapter.new_cache()
    visual = adapter.project(kept.tokens[[group.row for group in groups]])
    befores = {
        before: adapter.embed(torch.tensor(before, dtype=torch.int64))
        for before in {group.before for group in groups}
    }
    prefixes = [
        torch.cat([befores[group.before], tokens[: group.tokens]])
        for group, tokens in zip(groups, visual, strict=True)
    ]
    # Padding stands on the right, so the plain causal mask already hides it.
    adapter.run(pad_sequence(prefixes, batch_first=True), cache)
    lengths = [group.length for group in groups]
    owners = prefix_owners(lengths)
    found = []
    for turn in range(max(len(group.packs) for group in groups)):
        asked = [group.packs[turn] if turn < len(group.packs) else () for group in groups]
        spent, answers = decode(adapter, cache, owners, lengths, asked)
        found += answers
        cache.crop(-spent)
    return found
