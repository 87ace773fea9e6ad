"""Adapters of lmms-eval's own scoring functions to the documents of the pocket tasks."""

from __future__ import annotations

import string
from typing import Any

from lmms_eval.tasks.mme import utils as mme
from lmms_eval.tasks.scienceqa import utils as scienceqa


def question_with_choices(doc: dict[str, Any]) -> str:
    """The question, then each choice after its letter: `how many ? A 1 B 2`."""
    choices = zip(string.ascii_uppercase, doc["choices"], strict=False)
    return " ".join([doc["question"], *(f"{letter} {choice}" for letter, choice in choices)])


def mme_process_results(doc: dict[str, Any], results: list[str]) -> dict[str, Any]:
    """MME's results, with questions paired by image instead of by question_id."""
    return mme.mme_process_results({**doc, "question_id": doc["image_id"]}, results)


def sqa_process_results(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """ScienceQA's results, with the answer stored as a letter instead of a number."""
    number = string.ascii_uppercase.index(doc["answer"])
    return scienceqa.sqa_process_results({**doc, "answer": number}, results)
