"""Batches of the language stage: scenes, and the questions packed end to end after each image."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prunesid.pocket.questions import Question, ask
from prunesid.pocket.scenes import Scene
from prunesid.pocket.training.batches import scene_batch
from prunesid.pocket.training.decoder import Packed
from prunesid.pocket.training.grounding import NONE, Steps, shape_centers, steps_of
from prunesid.pocket.training.schedule import Phase
from prunesid.pocket.vocabulary import ids

QUOTA = {
    "existence": 4, "attribute": 3, "spatial": 6, "side": 3, "count": 6, "code": 1,
    "character": 3, "background": 1, "multiple_choice": 7, "judge": 10, "locate": 3, "fact": 4,
}  # fmt: skip
# Questions are taken while they fit, so that the images of a batch have about equally many tokens.
TOKENS = 400
# The longest answers and the hardest counting get more weight, since they have few tokens.
ANSWER_WEIGHT = defaultdict(lambda: 1.0, code=4.0, count=2.0, character=2.0, repetition=3.0)
END_WEIGHT, QUESTION_WEIGHT = 0.3, 0.1


def _tokens(question: Question) -> int:
    return len(question.prompt.split()) + len(question.answer.split()) + 2


def choose(
    scene: Scene,
    rng: np.random.Generator,
    quota: dict[str, int] = QUOTA,
    ask: Callable[[Scene, np.random.Generator, dict[str, int]], list[Question]] = ask,
) -> list[Question]:
    """Questions about a scene, in random order, with at most TOKENS tokens in total."""
    asked = ask(scene, rng, quota)
    asked = [asked[i] for i in rng.permutation(len(asked))]
    total = np.cumsum([_tokens(q) for q in asked])
    return asked[: max(1, int((total <= TOKENS).sum()))]


@dataclass(frozen=True)
class Batch:
    """The data of one training step.

    images    the fields of `scene_batch`
    packed    the questions
    steps     the fields of `grounding.Steps`, each (B, L)
    centers   (B, S, P) of `grounding.shape_centers`
    families  the families of each image's questions
    """

    images: dict[str, Tensor]
    packed: Packed
    steps: dict[str, Tensor]
    centers: Tensor
    families: list[list[str]]


def pack(
    scenes: Sequence[Any],
    questions: Sequence[Sequence[Question]],
    steps_of: Callable[[Question, Any, int], Any] = steps_of,
    step_names: Sequence[str] = tuple(Steps.__dataclass_fields__),
) -> tuple[Packed, dict[str, Tensor]]:
    """Token ids and weights of every image's questions, and the steps of their answers.

    steps_of    the fields `step_names` of a question about a scene; see `grounding.steps_of`
    """
    rows: list[dict[str, list]] = []
    for scene, asked in zip(scenes, questions, strict=True):
        row: dict[str, list] = {k: [] for k in (*Packed.__dataclass_fields__, *step_names)}
        for number, question in enumerate(asked):
            prompt = [*question.prompt.split(), "ASSISTANT:"]
            answer = question.answer.split()
            tokens = [*prompt, *answer, "</s>"]
            row["ids"] += ids(tokens)
            row["segment"] += [number] * len(tokens)
            row["place"] += range(len(tokens))
            # A question's first token has no predecessor within the question.
            row["weight"] += [0.0] + [QUESTION_WEIGHT] * (len(prompt) - 2) + [0.0]
            row["weight"] += [ANSWER_WEIGHT[question.family]] * len(answer) + [END_WEIGHT]
            row["answer"] += [False] * len(prompt) + [True] * len(answer) + [False]
            steps = steps_of(question, scene, len(tokens))
            for name in step_names:
                row[name] += getattr(steps, name)
        rows.append(row)
    length = -(-max(len(r["ids"]) for r in rows) // 16) * 16
    filler = {"ids": ids(["<pad>"])[0], "segment": -1, "place": 0, "weight": 0.0, "answer": False}
    filled = {
        name: torch.tensor([r[name] + [fill] * (length - len(r[name])) for r in rows])
        for name, fill in (filler | dict.fromkeys(step_names, NONE)).items()
    }
    return Packed(**{k: filled[k] for k in filler}), {k: filled[k] for k in step_names}


def batch_of(phase: Phase, seed: int, step: int) -> Batch:
    """The `step`-th batch of a phase: a pure function of its arguments."""
    rng = np.random.default_rng([seed, phase.side, step])
    # Images of one kind allow about equally many questions, which leaves less padding.
    scenes = phase.scenes(rng, alike=True)
    questions = [choose(scene, rng) for scene in scenes]
    packed, steps = pack(scenes, questions)
    families = [[q.family for q in asked] for asked in questions]
    return Batch(scene_batch(scenes), packed, steps, shape_centers(scenes), families)
