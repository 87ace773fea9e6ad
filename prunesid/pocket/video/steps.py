"""Supervision of the intermediate steps of an answer about a clip.

As in `prunesid.pocket.training.grounding`, linear probes on the language model's hidden states,
used in training only, ask for each step where it can be known:

at a visual token              which frame it is from; which way its shape has moved, how many times
                               it has come, and how many others came before
after the last word of a name  the patches with the centers of what it fits; if that is one thing,
                               those of its last moment, its first and last moment, how many times
                               it comes, and its direction
at the question mark           the answer, and the patches of the thing that is asked for
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from prunesid.pocket.questions import Question
from prunesid.pocket.training.decoder import States
from prunesid.pocket.training.grounding import NONE, Pointer, asked_loss, named, pointer_loss
from prunesid.pocket.training.labels import center_shares
from prunesid.pocket.video.clips import MOMENTS, SIDE, Film
from prunesid.pocket.video.model import FRAME_GRID, PATCHES
from prunesid.pocket.video.questions import visitors
from prunesid.pocket.vocabulary import DIRECTIONS, NUMBERS, ids, video_words

FRAME = 1 + PATCHES  # tokens of a frame: CLS and its patches
TOKENS = MOMENTS * FRAME
WAYS = ("", *DIRECTIONS)
# 0-based blocks of the language model that the probes read.
QUERY_BLOCK, FRAME_BLOCK, TOKEN_BLOCK, NAME_BLOCK, ANSWER_BLOCK = 0, 1, 2, 3, 4
LATEST_BLOCK, WANTED_BLOCK = 2, 3
_AT_NAMES = {"first": MOMENTS, "last": MOMENTS, "times": len(NUMBERS), "way": len(WAYS)}
_AT_TOKENS = {"way": len(WAYS), "times": len(NUMBERS), "rank": 3}


@dataclass(frozen=True)
class Steps:
    """Targets of one question, a value per token of its prompt, NONE where nothing is asked.

    fits   at a name's last word, a bit mask of the actors that it fits
    first, last, times, way  if that is one, its moments, how many times it comes less one, and its
           direction's number in WAYS
    early  at the question mark, the id of the answer's first word
    wanted  there, a bit mask of the actor whose name is the answer
    """

    fits: list[int]
    first: list[int]
    last: list[int]
    times: list[int]
    way: list[int]
    early: list[int]
    wanted: list[int]


STEP_NAMES = tuple(Steps.__dataclass_fields__)


def steps_of(question: Question, film: Film, length: int) -> Steps:
    """The steps of a question about `film`, for `length` tokens that begin with its prompt."""
    found = Steps(*([NONE] * length for _ in STEP_NAMES))
    text = question.text.split()
    for place, fitting in named(text, [actor.shape for actor in film.actors]):
        found.fits[place] = sum(1 << number for number in fitting)
        if len(fitting) == 1:
            actor = film.actors[fitting[0]]
            found.first[place], found.last[place] = actor.first, actor.last
            found.times[place] = actor.times - 1
            found.way[place] = WAYS.index(actor.direction)
    found.early[len(text) - 1] = ids(question.answer.split())[0]
    for number, actor in enumerate(film.actors):
        if actor.name == question.answer:
            found.wanted[len(text) - 1] = 1 << number
    return found


def owners(masks: np.ndarray) -> Tensor:
    """(TOKENS,) the number of the actor that fills most of a patch; NONE for background and CLS.

    masks  (MOMENTS, SIDE, SIDE) of `clips.moments`
    """
    tiles = masks.reshape(MOMENTS, FRAME_GRID, -1, FRAME_GRID, SIDE // FRAME_GRID)
    areas = np.stack([(tiles == n + 1).sum((2, 4)) for n in range(max(1, int(masks.max())))])
    best = np.where(areas.max(0) > 0, areas.argmax(0), NONE).reshape(MOMENTS, PATCHES)
    return torch.from_numpy(np.pad(best, ((0, 0), (1, 0)), constant_values=NONE)).flatten()


def token_targets(film: Film, owner: Tensor) -> dict[str, Tensor]:
    """Targets (TOKENS,) of every visual token, NONE where nothing is asked; see `_AT_TOKENS`.

    way    the direction of the token's shape, once it has moved for two moments
    times  how many times it has come by then, less one, unless it is always there
    rank   how many came before it, in an `order` clip
    """
    table = torch.full((len(_AT_TOKENS), len(film.actors) + 1, MOMENTS), NONE)
    ranks = {a.name: rank for rank, a in enumerate(visitors(film) if film.kind == "order" else ())}
    for number, actor in enumerate(film.actors):
        for moment in range(MOMENTS):
            came = sum(
                now and not before
                for before, now in zip(
                    (False, *actor.shown[:moment]), actor.shown[: moment + 1], strict=True
                )
            )
            way = WAYS.index(actor.direction) if moment >= 2 else NONE
            times = NONE if all(actor.shown) else came - 1
            table[:, number, moment] = torch.tensor([way, times, ranks.get(actor.name, NONE)])
    frame = torch.arange(TOKENS) // FRAME
    values = table[:, owner, frame]  # NONE is the last row, which has no targets
    return {"frame": frame, **dict(zip(_AT_TOKENS, values, strict=True))}


def actor_centers(film: Film) -> Tensor:
    """(1, A, TOKENS) float32 shares of each actor's center among the tokens of each frame."""
    centers = torch.zeros(1, len(film.actors), MOMENTS, FRAME)
    for number, actor in enumerate(film.actors):
        for moment in range(MOMENTS):
            if (shape := actor.at(moment)) is not None:
                shares = center_shares(shape.x, shape.y, FRAME_GRID, FRAME_GRID)
                centers[0, number, moment, 1:] = torch.from_numpy(shares)
    return centers.flatten(2)


def last_centers(film: Film, centers: Tensor) -> Tensor:
    """Those of `actor_centers` that are of an actor's last moment; the others are zero."""
    last = torch.tensor([actor.last for actor in film.actors])
    frame = torch.arange(TOKENS) // FRAME
    return centers * (frame == last[:, None])


class Probes(Pointer):
    """Linear readouts of the language model's hidden states, used in training only."""

    def __init__(self, width: int):
        super().__init__(width)
        self.frames = nn.LayerNorm(width)
        self.frame = nn.Linear(width, MOMENTS)
        self.tokens = nn.LayerNorm(width)
        self.of_token = nn.ModuleDict({k: nn.Linear(width, n) for k, n in _AT_TOKENS.items()})
        self.names = nn.LayerNorm(width)
        self.of_name = nn.ModuleDict({k: nn.Linear(width, n) for k, n in _AT_NAMES.items()})
        self.answers = nn.LayerNorm(width)
        self.early = nn.Linear(width, len(video_words()))
        self.latest = Pointer(width)
        self.wanted = Pointer(width)


def _read(states: Tensor, norm: nn.Module, head: nn.Module, target: Tensor) -> Tensor:
    there = target != NONE
    return asked_loss(head(norm(states[there])), target[there])


def token_loss(prefix: Sequence[Tensor], probes: Probes, targets: dict[str, Tensor]) -> Tensor:
    """Mean loss of the probes of the K visual tokens, with states (K, D) per block."""
    losses = [_read(prefix[FRAME_BLOCK], probes.frames, probes.frame, targets["frame"])]
    for name, head in probes.of_token.items():
        block = WANTED_BLOCK if name == "way" else TOKEN_BLOCK
        losses.append(_read(prefix[block], probes.tokens, head, targets[name]))
    return torch.stack(losses).mean()


def question_loss(
    states: States,
    tokens: Tensor,
    probes: Probes,
    steps: dict[str, Tensor],
    film: Film,
    kept: Tensor,
) -> Tensor:
    """Mean loss of the probes of the questions.

    tokens (1, K, E) the visual tokens `kept` as they enter, steps the fields of `Steps` (1, L)
    """
    asked, seen = states.questions, [each[:, -len(kept) :] for each in states.prefix]
    every = actor_centers(film)
    centers, ends = every[:, :, kept], last_centers(film, every)[:, :, kept]
    only = torch.where(steps["first"] == NONE, NONE, steps["fits"])
    losses = [
        pointer_loss(asked[QUERY_BLOCK], tokens, probes, steps["fits"], centers),
        pointer_loss(asked[LATEST_BLOCK], seen[LATEST_BLOCK], probes.latest, only, ends),
        pointer_loss(
            asked[WANTED_BLOCK], seen[WANTED_BLOCK], probes.wanted, steps["wanted"], centers
        ),
    ]
    for name, head in probes.of_name.items():
        losses.append(_read(asked[NAME_BLOCK], probes.names, head, steps[name]))
    losses.append(_read(asked[ANSWER_BLOCK], probes.answers, probes.early, steps["early"]))
    return torch.stack(losses).mean()
