"""LLaVA-Bench without a judge: ROUGE-L (Lin, 2004) against the reference answer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from PIL.Image import Image


def doc_to_visual(doc: dict[str, Any]) -> list[Image]:
    """The image, in RGB."""
    return [doc["image"].convert("RGB")]


def process_results(doc: dict[str, Any], results: Sequence[str]) -> dict[str, float]:
    """`rouge_l` of one reply, from 0 to 1."""
    return {"rouge_l": rouge_l(results[0], doc["gpt_answer"])}


def rouge_l(reply: str, reference: str) -> float:
    """F1 of the longest common subsequence of words, in lower case and without punctuation."""
    said, wanted = (re.findall(r"\w+", text.lower()) for text in (reply, reference))
    if not said or not wanted:
        return 0.0
    return 2 * _common(said, wanted) / (len(said) + len(wanted))


def _common(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence."""
    lengths = [0] * (len(second) + 1)
    for word in first:
        diagonal = 0
        for place, other in enumerate(second, 1):
            kept = lengths[place]
            lengths[place] = (
                diagonal + 1 if word == other else max(lengths[place], lengths[place - 1])
            )
            diagonal = kept
    return lengths[-1]
