"""Questions on images of many shapes: those of `prunesid.pocket.questions`, and two on places."""

from __future__ import annotations

import numpy as np

from prunesid.pocket import questions
from prunesid.pocket.questions import Question, unique_names
from prunesid.pocket.scenes import Scene
from prunesid.pocket.vocabulary import PLACES

_BORDER = 0.04  # share of a side; things nearer to the border of two places are not asked for


def corner(scene: Scene, rng: np.random.Generator, margin: float = 20) -> list[Question]:
    """`in which corner is the red circle ?`: the quarter of the image that it lies in."""
    asked = []
    for s in unique_names(scene):
        right, down = (
            (share - 0.5) * side
            for share, side in zip(scene.share(s.x, s.y), scene.full, strict=True)
        )
        if min(abs(right), abs(down)) >= margin:
            answer = f"{'top' if down < 0 else 'bottom'} {'left' if right < 0 else 'right'}"
            asked.append(Question("corner", f"in which corner is the {s.name} ?", answer))
    return [asked[i] for i in rng.permutation(len(asked))]


def place(scene: Scene, rng: np.random.Generator) -> list[Question]:
    """`what color is at the top left ?`: the only thing in one of the image's 3 x 3 parts."""
    shares = [scene.share(s.x, s.y) for s in scene.shapes]
    asked = []
    for row, names in enumerate(PLACES):
        for column, name in enumerate(names):
            # How far a center lies outside of the part; less than 0 is inside.
            outside = [
                max(abs(3 * x - column - 0.5), abs(3 * y - row - 0.5)) / 3 - 1 / 6
                for x, y in shares
            ]
            near = [number for number, far in enumerate(outside) if far < _BORDER]
            if len(near) == 1 and outside[near[0]] < -_BORDER:
                thing = scene.shapes[near[0]]
                for what, answer in (("color", thing.color), ("shape", thing.shape)):
                    asked.append(Question("place", f"what {what} is at the {name} ?", answer))
    return [asked[i] for i in rng.permutation(len(asked))]


FAMILIES = questions.FAMILIES | {"corner": corner, "place": place}
EVALUATED = (*questions.EVALUATED, "corner", "place")


def ask(scene: Scene, rng: np.random.Generator, quota: dict[str, int]) -> list[Question]:
    """At most `quota[family]` questions of each family named there."""
    return [q for name, n in quota.items() for q in FAMILIES[name](scene, rng)[:n]]
