"""Blocks of a few batches, within which images are sorted into batches of similar length.

The images that share a batch decide the last bits of an answer. A benchmark that is cut between
blocks therefore has the same answers, bit for bit, as one that is not cut.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from prunesid.core.questions import Question

BATCHES = 8


def block_size(batch_size: int) -> int:
    """Images of a block."""
    return BATCHES * batch_size


def image_numbers(inputs: Iterable[str], questions: Sequence[Question]) -> dict[str, int]:
    """{input: number of its image}.

    Inputs of one image share a number, for instance where each question is an input of its own.
    """
    images = {question.shown: question.image_id for question in questions}
    numbers: dict[str, int] = {}
    return {name: numbers.setdefault(images.get(name, name), len(numbers)) for name in inputs}
