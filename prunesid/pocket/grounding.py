"""What the words of a question refer to: the intermediate steps of an answer, supervised.

A question about relations or numbers is answered in steps: find what is named, see where and how
often it is, compare. A language model this small takes thousands of batches to discover the first
step from the answers alone. Linear probes on its hidden states, used in training only, ask for each
step where it can be known: behind the last word of a name, how many things it fits and where the
only one lies; at the question mark, the answer; behind an option, whether it is the right one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prunesid.pocket.questions import Question
from prunesid.pocket.scenes import FULL_SIZE, Scene, Shape
from prunesid.pocket.vocabulary import COLOR_NAMES, OPTIONS, SHAPES, ids, plural, words

NONE = -1
PLACES = 12  # bins of an axis of the full image
MOST = 5  # this many things or more are one class
# 0-based blocks of the language model that the probes read: a name is found before it is compared.
NAME_BLOCK, ANSWER_BLOCK, OPTION_BLOCK = 2, 3, 4

_SHAPE_OF = {s: s for s in SHAPES} | {plural(s): s for s in SHAPES}
_ANY = ("object", "objects")


@dataclass(frozen=True)
class Steps:
    """Targets of one question, a value per token of its prompt, NONE where nothing is asked.

    matches: how many things a name fits, at its last word; column, row: bins of the center of the
    only one; early: id of the answer's first word, at the question mark; right: whether an option
    is the right one, at its last word.
    """

    matches: list[int]
    column: list[int]
    row: list[int]
    early: list[int]
    right: list[int]


def _named(tokens: Sequence[str], shapes: Sequence[Shape]) -> Iterator[tuple[int, list[Shape]]]:
    """(place of the last word, the shapes that fit) for each name: `red circle`, `stars`, ..."""
    for place, word in enumerate(tokens):
        if word not in _SHAPE_OF and word not in _ANY:
            continue
        color = tokens[place - 1] if place and tokens[place - 1] in COLOR_NAMES else None
        shape = _SHAPE_OF.get(word)
        yield place, [
            s for s in shapes if shape in (None, s.shape) and color in (None, s.color)
        ]  # fmt: skip


def steps_of(question: Question, scene: Scene, length: int) -> Steps:
    """The steps of a question about `scene`; `length` tokens, the first are those of its prompt."""
    matches, column, row, early, right = ([NONE] * length for _ in range(5))
    text = question.text.split()
    if scene.shapes:
        for place, found in _named(text, scene.shapes):
            matches[place] = min(len(found), MOST)
            if len(found) == 1:
                x, y = found[0].x + scene.origin[0], found[0].y + scene.origin[1]
                column[place], row[place] = (int(PLACES * v / FULL_SIZE) for v in (x, y))
    answer = question.answer
    if question.options:
        answer = question.options[OPTIONS.index(question.answer)]
        for number, option in enumerate(question.options):
            right[len(text) + 2 * number + 1] = int(option == answer)
    early[len(text) - 1] = ids(answer.split())[0]
    return Steps(matches, column, row, early, right)


class Probes(nn.Module):
    """Linear read-outs of the language model's hidden states, used in training only."""

    def __init__(self, width: int):
        super().__init__()
        self.names = nn.LayerNorm(width)
        self.matches = nn.Linear(width, MOST + 1)
        self.column = nn.Linear(width, PLACES)
        self.row = nn.Linear(width, PLACES)
        self.answers = nn.LayerNorm(width)
        self.early = nn.Linear(width, len(words()))
        self.options = nn.LayerNorm(width)
        self.right = nn.Linear(width, 2)


def _asked(logits: Tensor, target: Tensor) -> Tensor:
    """Mean cross-entropy of (n, classes) logits over the n targets; 0 where there are none."""
    return F.cross_entropy(logits, target, reduction="sum") / max(1, len(target))


def grounding_loss(states: Sequence[Tensor], probes: Probes, steps: dict[str, Tensor]) -> Tensor:
    """Mean of the probes' losses; states (B, L, D) per block, steps the fields of `Steps` (B, L)."""
    readers = {
        "matches": (NAME_BLOCK, probes.names, probes.matches),
        "column": (NAME_BLOCK, probes.names, probes.column),
        "row": (NAME_BLOCK, probes.names, probes.row),
        "early": (ANSWER_BLOCK, probes.answers, probes.early),
        "right": (OPTION_BLOCK, probes.options, probes.right),
    }
    losses = []
    for name, (block, norm, head) in readers.items():
        there = steps[name] != NONE
        losses.append(_asked(head(norm(states[block][there])), steps[name][there]))
    return torch.stack(losses).mean()
