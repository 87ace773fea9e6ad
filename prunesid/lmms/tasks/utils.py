"""What the pocket tasks add to lmms-eval's own scoring functions: the shape of our documents."""

from __future__ import annotations

import string
from typing import Any

from lmms_eval.tasks.mme import utils as mme
from lmms_eval.tasks.scienceqa import utils as scienceqa


def question_with_choices(doc: dict[str, Any]) -> str:
    """`how many ? A 1 B 2`: the question, then each choice behind its letter."""
    choices = zip(string.ascii_uppercase, doc["choices"], strict=False)
    return " ".join([doc["question"], *(f"{letter} {choice}" for letter, choice in choices)])


def mme_process_results(doc: dict[str, Any], results: list[str]) -> dict[str, Any]:
    """MME pairs questions by its question_id; ours are paired by image."""
    return mme.mme_process_results({**doc, "question_id": doc["image_id"]}, results)


def sqa_process_results(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """ScienceQA stores the answer as a number; ours is the letter."""
    number = string.ascii_uppercase.index(doc["answer"])
    return scienceqa.sqa_process_results({**doc, "answer": number}, results)
