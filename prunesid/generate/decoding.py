"""Greedy decoding of packed questions on cached prefixes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from prunesid.core.questions import Question, Stopping
from prunesid.core.record import Kept
from prunesid.generate.prefix import attention_mask, pack
from prunesid.images.medium import Medium

if TYPE_CHECKING:
    from prunesid.families.base import Adapter

Inputs = Mapping[str, Sequence[Medium]]
"""{name of a question's visual input: its media}; the media's rows are rows of a `Kept`."""


@dataclass(frozen=True)
class Asked:
    """A question ready for the model.

    place     its index among all questions
    after     the tokens after the last image
    stopping  when its answer ends
    """

    place: int
    after: tuple[int, ...]
    stopping: Stopping


def prepare(
    adapter: Adapter, place: int, question: Question, media: Sequence[Medium]
) -> tuple[tuple[tuple[int, ...], ...], Asked]:
    """The text before each medium, as token ids, and the `place`-th question.

    ValueError if the prompt ends with an image or the generation arguments ask for sampling.
    """
    prompt = adapter.prompt(question.context, [medium.kind for medium in media])
    if not prompt.after:
        raise ValueError(f"question {question.id}: its prompt ends with the image")
    return prompt.before, Asked(place, prompt.after, Stopping.of(question.gen_kwargs))


def check_inputs(kept: Kept, inputs: Inputs, questions: Sequence[Question]) -> None:
    """ValueError if `kept` and the inputs differ in rows or a question's input is missing."""
    rows = sum(len(medium.rows) for media in inputs.values() for medium in media)
    if rows != len(kept):
        raise ValueError(f"inputs of {rows} crops for {len(kept)} rows of kept tokens")
    for question in questions:
        if question.shown not in inputs:
            raise ValueError(f"question {question.id}: image {question.shown!r} was not kept")


def decode(
    adapter: Adapter,
    cache: Any,
    owners: torch.Tensor,
    positions: Sequence[int],
    asked: Sequence[Sequence[Asked]],
) -> tuple[int, list[tuple[int, str]]]:
    """Decode B packs of questions greedily.

    owners     (B, P) owners of the cached prefixes, padding included
    positions  rotary position after each prefix

    Returns the number of columns added to the cache, and (place, text) of each question.
    """
    answers: list[list[list[int]]] = [[[] for _ in row] for row in asked]
    feed: list[list[Sequence[int]]] = [[question.after for question in row] for row in asked]
    starts = [[place] * len(row) for place, row in zip(positions, asked, strict=True)]
    prefix = owners.shape[1]
    while any(tokens for row in feed for tokens in row):
        packed = pack(feed, starts)
        mask = attention_mask(packed.owners, owners, adapter.dtype).to(adapter.device)
        hidden = adapter.run(
            adapter.embed(packed.ids),
            cache,
            mask=mask,
            positions=packed.positions.to(adapter.device),
        )
        owners = torch.cat([owners, packed.owners], dim=1)
        asking = [
            (image, slot) for image, row in enumerate(feed) for slot in range(len(row)) if row[slot]
        ]
        columns = [packed.last[image][slot] for image, slot in asking]
        images = torch.tensor([image for image, _ in asking])
        chosen = adapter.logits(hidden[images, torch.tensor(columns)]).argmax(-1).tolist()
        for (image, slot), token in zip(asking, chosen, strict=True):
            question, text = asked[image][slot], answers[image][slot]
            starts[image][slot] += len(feed[image][slot])
            feed[image][slot] = () if ends(adapter, question, text, token) else (token,)
    found = [
        (question.place, question.stopping.cut(adapter.decode(text)))
        for row, texts in zip(asked, answers, strict=True)
        for question, text in zip(row, texts, strict=True)
    ]
    return owners.shape[1] - prefix, found


def ends(adapter: Adapter, question: Asked, text: list[int], token: int) -> bool:
    """Append `token` to the answer unless it is an end token; true if the answer is complete."""
    if token in adapter.end_ids:
        return True
    text.append(token)
    if len(text) >= question.stopping.max_new_tokens:
        return True
    return bool(question.stopping.until) and question.stopping.reached(adapter.decode(text))
