"""Supervision of the intermediate steps of an answer: the things that a question's words refer to.

A question about relations or numbers is answered in steps: find the named things, their places,
number and looks, then compare. A language model this small takes thousands of batches to discover
the first step from the answers alone. So linear probes on its hidden states, used in training only,
ask for each step at the token where it can be known:

after the last word of a name  the patches with the centers of the things that it fits, their
                               number, and, if there is only one, its place, color and shape
at the question mark           the answer
after an option                whether it is the right one
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prunesid.pocket.questions import Question
from prunesid.pocket.scenes import PATCH, Scene, Shape
from prunesid.pocket.training.labels import center_shares
from prunesid.pocket.vocabulary import COLOR_NAMES, OPTIONS, SHAPES, ids, plural, words

NONE = -1
PLACES = 12  # bins of an axis of the full image
MOST = 5  # this many things or more are one class
# 0-based blocks of the language model that the probes read. The words of a name become a query,
# then the things are found and counted, then compared.
QUERY_BLOCK, NAME_BLOCK, ANSWER_BLOCK, OPTION_BLOCK = 0, 2, 3, 4
POINTER = 64  # width in which queries and patches are matched

_SHAPE_OF = {s: s for s in SHAPES} | {plural(s): s for s in SHAPES}
_ANY = ("object", "objects")


@dataclass(frozen=True)
class Steps:
    """Targets of one question, a value per token of its prompt, NONE where nothing is asked.

    fits     at a name's last word, a bit mask of the shapes in the scene that it fits
    matches  the number of these shapes
    column, row, color, shape  if there is only one, the bins of its center, its color and shape
    early    at the question mark, the id of the answer's first word
    right    at an option's last word, whether it is the right one
    """

    fits: list[int]
    matches: list[int]
    column: list[int]
    row: list[int]
    color: list[int]
    shape: list[int]
    early: list[int]
    right: list[int]


def named(tokens: Sequence[str], shapes: Sequence[Shape]) -> Iterator[tuple[int, list[int]]]:
    """(place of the last word, numbers of the shapes that fit) for each name: `red circle`, ..."""
    for place, word in enumerate(tokens):
        if word not in _SHAPE_OF and word not in _ANY:
            continue
        color = tokens[place - 1] if place and tokens[place - 1] in COLOR_NAMES else None
        shape = _SHAPE_OF.get(word)
        yield place, [
            number for number, s in enumerate(shapes)
            if shape in (None, s.shape) and color in (None, s.color)
        ]  # fmt: skip


def steps_of(question: Question, scene: Scene, length: int) -> Steps:
    """The steps of a question about `scene`, for `length` tokens that begin with its prompt."""
    fits, matches, column, row, color, shape, early, right = ([NONE] * length for _ in range(8))
    text = question.text.split()
    if scene.shapes:
        for place, found in named(text, scene.shapes):
            fits[place] = sum(1 << number for number in found)
            matches[place] = min(len(found), MOST)
            if len(found) == 1:
                only = scene.shapes[found[0]]
                share = scene.share(only.x, only.y)
                column[place], row[place] = (int(PLACES * v) for v in share)
                color[place], shape[place] = COLOR_NAMES.index(only.color), SHAPES.index(only.shape)
    answer = question.answer
    if question.options:
        answer = question.options[OPTIONS.index(question.answer)]
        for number, option in enumerate(question.options):
            right[len(text) + 2 * number + 1] = int(option == answer)
    early[len(text) - 1] = ids(answer.split())[0]
    return Steps(fits, matches, column, row, color, shape, early, right)


def shape_centers(scenes: Sequence[Scene], patch: int = PATCH) -> Tensor:
    """(B, S, P) float32 shares of each shape's center among the patches (`labels.center_shares`).

    All scenes have P patches of `patch` px. Entries beyond a scene's own shapes are zero.
    """
    columns, rows = (side // patch for side in scenes[0].size)
    longest = max(1, *(len(scene.shapes) for scene in scenes))
    centers = torch.zeros(len(scenes), longest, rows * columns)
    for image, scene in enumerate(scenes):
        for number, shape in enumerate(scene.shapes):
            centers[image, number] = torch.from_numpy(
                center_shares(shape.x, shape.y, rows, columns, patch)
            )
    return centers


class Pointer(nn.Module):
    """Readouts by which words point to visual tokens; see `pointer_loss`."""

    def __init__(self, width: int):
        super().__init__()
        self.words = nn.LayerNorm(width)
        self.query = nn.Linear(width, POINTER)
        self.patches = nn.LayerNorm(width)
        self.key = nn.Linear(width, POINTER)
        self.nothing = nn.Parameter(torch.zeros(POINTER))


class Probes(Pointer):
    """Linear readouts of the language model's hidden states, used in training only."""

    def __init__(self, width: int):
        super().__init__(width)
        self.names = nn.LayerNorm(width)
        self.matches = nn.Linear(width, MOST + 1)
        self.column = nn.Linear(width, PLACES)
        self.row = nn.Linear(width, PLACES)
        self.color = nn.Linear(width, len(COLOR_NAMES))
        self.shape = nn.Linear(width, len(SHAPES))
        self.answers = nn.LayerNorm(width)
        self.early = nn.Linear(width, len(words()))
        self.options = nn.LayerNorm(width)
        self.right = nn.Linear(width, 2)


def asked_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Mean cross-entropy of (n, classes) logits over the n targets; 0 if there are none."""
    return F.cross_entropy(logits, target, reduction="sum") / max(1, len(target))


def pointer_loss(
    states: Tensor, tokens: Tensor, probes: Pointer, fits: Tensor, centers: Tensor
) -> Tensor:
    """Cross-entropy of pointing from each name to the patches of the things that it fits.

    The softmax is over the patches and the probes' `nothing`, like the attention that has to find
    them. states
    (B, L, D), tokens (B, P, D) patches as they enter the language model, fits (B, L), centers
    (B, S, P) of `shape_centers`.
    """
    there = fits != NONE
    image = there.nonzero()[:, 0]
    asked = fits[there]
    fitting = (asked[:, None] >> torch.arange(centers.shape[1]) & 1).float()  # (n, S)
    there_is_none = (asked == 0).float()[:, None]
    wanted = torch.cat([(fitting[:, None] @ centers[image])[:, 0], there_is_none], 1)
    wanted = wanted / wanted.sum(1, keepdim=True)
    keys = probes.key(probes.patches(tokens))
    keys = torch.cat([keys, probes.nothing.expand(len(keys), 1, -1)], 1)
    queries = probes.query(probes.words(states))
    logits = (queries @ keys.transpose(1, 2))[there] / POINTER**0.5
    return -(wanted * logits.log_softmax(1)).sum() / max(1, len(asked))


def grounding_loss(
    states: Sequence[Tensor],
    tokens: Tensor,
    probes: Probes,
    steps: dict[str, Tensor],
    centers: Tensor,
) -> Tensor:
    """Mean of the probes' losses.

    states (B, L, D) per block, tokens (B, P, D) of the image, steps the fields of `Steps` (B, L),
    centers (B, S, P) of `shape_centers`.
    """
    readers = {
        "matches": (NAME_BLOCK, probes.names, probes.matches),
        "column": (NAME_BLOCK, probes.names, probes.column),
        "row": (NAME_BLOCK, probes.names, probes.row),
        "color": (NAME_BLOCK, probes.names, probes.color),
        "shape": (NAME_BLOCK, probes.names, probes.shape),
        "early": (ANSWER_BLOCK, probes.answers, probes.early),
        "right": (OPTION_BLOCK, probes.options, probes.right),
    }
    losses = [pointer_loss(states[QUERY_BLOCK], tokens, probes, steps["fits"], centers)]
    for name, (block, norm, head) in readers.items():
        there = steps[name] != NONE
        losses.append(asked_loss(head(norm(states[block][there])), steps[name][there]))
    return torch.stack(losses).mean()
