"""Questions about a clip, with their answers: one function per family.

As in `prunesid.pocket.questions`, yes and no are equally likely. What a question asks for is what
its clip's kind is about; looks are asked of every clip.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from prunesid.pocket.questions import Question
from prunesid.pocket.video.clips import VISIT, Actor, Film
from prunesid.pocket.vocabulary import DIRECTIONS, NUMBERS


def _coin(rng: np.random.Generator) -> bool:
    return bool(rng.integers(2))


def _pick(rng: np.random.Generator, items: Sequence):
    return items[int(rng.integers(len(items)))]


def _other(rng: np.random.Generator, items: Sequence[str], without: str) -> str:
    return _pick(rng, [item for item in items if item != without])


def _yes(holds: bool) -> str:
    return "yes" if holds else "no"


def motion(film: Film, rng: np.random.Generator) -> list[Question]:
    """`which way does the red circle move ?`, `what moves left ?`, and whether something does."""
    asked = []
    still = [a for a in film.actors if not a.direction]
    for actor in film.actors:
        if (way := actor.direction) == "":
            continue
        asked += [
            Question("motion", f"which way does the {actor.name} move ?", way, "direction"),
            Question("motion", f"what moves {way} ?", actor.name, "mover"),
        ]
        holds = _coin(rng)
        said = way if holds else _other(rng, DIRECTIONS, way)
        asked.append(
            Question("motion", f"does the {actor.name} move {said} ?", _yes(holds), "judged")
        )
        holds = _coin(rng)
        name = actor.name if holds else _pick(rng, still).name
        asked.append(Question("motion", f"does the {name} move ?", _yes(holds), "moves"))
    return asked


def repetition(film: Film, rng: np.random.Generator) -> list[Question]:
    """`how many times does the red circle appear ?`, one to four."""
    asked = []
    for actor in film.actors:
        if all(actor.shown):
            continue
        number = NUMBERS[actor.times - 1]
        text = f"how many times does the {actor.name} appear ?"
        asked.append(Question("repetition", text, number, "count"))
        holds = _coin(rng)
        said = number if holds else _other(rng, NUMBERS, number)
        times = "time" if said == "one" else "times"
        text = f"does the {actor.name} appear {said} {times} ?"
        asked.append(Question("repetition", text, _yes(holds), "judged"))
    return asked


def change(film: Film, rng: np.random.Generator) -> list[Question]:
    """`what appears ?`, `which vanishes , the red circle or the blue star ?`, and judgments."""
    appearing = next(a for a in film.actors if not a.shown[0])
    vanishing = next(a for a in film.actors if not a.shown[-1])
    other = _pick(rng, [a for a in film.actors if a is not vanishing])
    one, two = (vanishing, other) if _coin(rng) else (other, vanishing)
    asked = [
        Question("change", "what appears ?", appearing.name, "appears"),
        Question(
            "change",
            f"which vanishes , the {one.name} or the {two.name} ?",
            vanishing.name,
            "vanishes",
        ),
    ]
    for actor, verb in ((appearing, "appear"), (vanishing, "vanish")):
        holds = _coin(rng)
        rest = [a for a in film.actors if a is not actor]
        name = actor.name if holds else _pick(rng, rest).name
        asked.append(Question("change", f"does the {name} {verb} ?", _yes(holds), "judged"))
    return asked


def visitors(film: Film) -> list[Actor]:
    """The actors of an `order` clip that are there for VISIT moments, in the order of time."""
    brief = [a for a in film.actors if sum(a.shown) == VISIT]
    return sorted(brief, key=lambda actor: actor.first)


def order(film: Film, rng: np.random.Generator) -> list[Question]:
    """`what appears first ?`, `does the red circle appear before the blue star ?`."""
    came = visitors(film)
    asked = [
        Question("order", f"what appears {place} ?", actor.name, place)
        for place, actor in zip(("first", "second", "last"), came, strict=True)
    ]
    for one, other in ((0, 1), (1, 2), (0, 2)):
        early, late = came[one], came[other]
        holds, word = _coin(rng), _pick(rng, ("before", "after"))
        first, second = (early, late) if holds == (word == "before") else (late, early)
        text = f"does the {first.name} appear {word} the {second.name} ?"
        asked.append(Question("order", text, _yes(holds), "judged"))
    return asked


def attribute(film: Film, rng: np.random.Generator) -> list[Question]:
    """The color of the only shape of its kind, or the shape of the only object of its color."""
    every = [a.shape for a in film.actors]
    shapes, colors = Counter(s.shape for s in every), Counter(s.color for s in every)
    return [
        Question("attribute", f"what color is the {s.shape} ?", s.color, "color")
        for s in every
        if shapes[s.shape] == 1
    ] + [
        Question("attribute", f"what shape is the {s.color} object ?", s.shape, "shape")
        for s in every
        if colors[s.color] == 1
    ]


_OF_KIND: dict[str, Callable[[Film, np.random.Generator], list[Question]]] = {
    "motion": motion, "repetition": repetition, "change": change, "order": order,
}  # fmt: skip
FAMILIES = (*_OF_KIND, "attribute")


def ask(film: Film, rng: np.random.Generator, attributes: int) -> list[Question]:
    """All questions of the clip's kind, and at most `attributes` about looks, in random order."""
    looks = attribute(film, rng)
    looks = [looks[i] for i in rng.permutation(len(looks))[:attributes]]
    asked = [*_OF_KIND[film.kind](film, rng), *looks]
    return [asked[i] for i in rng.permutation(len(asked))]
