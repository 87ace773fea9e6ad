"""Images are sorted into batches of like length, but only within blocks of a few batches.

What shares a batch decides the last bits of an answer. So a benchmark that is cut between blocks has
the same answers, bit for bit, as one that is not cut.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from prunesid.core.questions import Question

BATCHES = 8


def block_size(batch_size: int) -> int:
    """Images of a block."""
    return BATCHES * batch_size


def image_numbers(inputs: Iterable[str], questions: Sequence[Question]) -> dict[str, int]:
    """{input: number of its image}; inputs of one image, where each question is one, share a number."""
    images = {question.shown: question.image_id for question in questions}
    numbers: dict[str, int] = {}
    return {name: numbers.setdefault(images.get(name, name), len(numbers)) for name in inputs}
