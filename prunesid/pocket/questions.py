"""Questions about a scene, with their answers: one function per family.

Each function returns every question of its family that the scene allows, in an order drawn from
`rng`, with yes and no (and the sides of every choice) equally likely, so that a model that does
not see the image stays at chance.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from prunesid.pocket.scenes import Scene, Shape
from prunesid.pocket.vocabulary import (
    BACKGROUNDS,
    BINS,
    CHARACTERS,
    COLOR_NAMES,
    DIRECTIONS,
    NUMBERS,
    OPTIONS,
    ORDINALS,
    PLACES,
    RANKS,
    SHAPES,
    plural,
)


@dataclass(frozen=True)
class Question:
    """`text` and `answer` are tokens joined by spaces; `options` are for multiple choice only."""

    family: str
    text: str
    answer: str
    topic: str = ""
    options: tuple[str, ...] = ()

    @property
    def prompt(self) -> str:
        """The user's prompt: the text, then each option after its letter."""
        lettered = (
            f"{letter} {option}" for letter, option in zip(OPTIONS, self.options, strict=False)
        )
        return " ".join((self.text, *lettered))


Family = Callable[[Scene, np.random.Generator], list[Question]]


def _shuffled(rng: np.random.Generator, items: Sequence) -> list:
    return [items[i] for i in rng.permutation(len(items))]


def _coin(rng: np.random.Generator) -> bool:
    return bool(rng.integers(2))


def unique_names(scene: Scene) -> list[Shape]:
    """Shapes that are unique in their color and shape together."""
    count = Counter(s.name for s in scene.shapes)
    return [s for s in scene.shapes if count[s.name] == 1]


def absent_names(scene: Scene, strategy: str) -> list[str]:
    """Color-shape names not in the scene, by POPE's three strategies.

    `adversarial`: color and shape both occur, on different objects; `popular`: one of the two
    occurs; `random`: any absent name.
    """
    present = {s.name for s in scene.shapes}
    shapes, colors = {s.shape for s in scene.shapes}, {s.color for s in scene.shapes}
    shared = {"adversarial": (2,), "popular": (1,), "random": (0, 1, 2)}
    if strategy not in shared:
        raise ValueError(f"unknown strategy {strategy!r}; choose from {', '.join(shared)}")
    return [
        f"{c} {s}"
        for c in COLOR_NAMES
        for s in SHAPES
        if f"{c} {s}" not in present and (c in colors) + (s in shapes) in shared[strategy]
    ]


def existence(scene: Scene, rng: np.random.Generator) -> list[Question]:
    """`is there a red circle ?`; negatives by all three of POPE's strategies."""
    if not scene.shapes:
        return []
    present = _shuffled(rng, sorted({s.name for s in scene.shapes}))
    asked = [Question("existence", f"is there a {name} ?", "yes") for name in present]
    strategies = _shuffled(rng, ("adversarial", "popular", "random"))
    refused: list[Question] = []
    for number in range(len(asked)):
        strategy = strategies[number % 3]
        names = absent_names(scene, strategy) or absent_names(scene, "random")
        name = names[int(rng.integers(len(names)))]
        refused.append(Question("existence", f"is there a {name} ?", "no", topic=strategy))
    return _shuffled(rng, asked + refused)


def attribute(scene: Scene, rng: np.random.Generator) -> list[Question]:
    """The color of the only shape of its kind, or the shape of the only object of its color."""
    shapes = Counter(s.shape for s in scene.shapes)
    colors = Counter(s.color for s in scene.shapes)
    asked = [
        Question("attribute", f"what color is the {s.shape} ?", s.color)
        for s in scene.shapes
        if shapes[s.shape] == 1
    ] + [
        Question("attribute", f"what shape is the {s.color} object ?", s.shape)
        for s in scene.shapes
        if colors[s.color] == 1
    ]
    return _shuffled(rng, asked)


def _relations(scene: Scene, margin: float = 30) -> list[tuple[Shape, Shape, str, str]]:
    """(a, b, relation that holds, its opposite) for pairs that differ clearly on an axis."""
    named = unique_names(scene)
    found = []
    for a in named:
        for b in named:
            if a is not b and b.x - a.x >= margin:
                found += [(a, b, "left", "right"), (b, a, "right", "left")]
            if a is not b and b.y - a.y >= margin:
                found += [(a, b, "above", "below"), (b, a, "below", "above")]
    return found


def _relation_phrase(relation: str) -> str:
    return relation if relation in ("above", "below") else f"{relation} of"


def spatial(scene: Scene, rng: np.random.Generator) -> list[Question]:
    """`is the red circle left or right of the blue star ?`, also as yes/no questions."""
    asked = []
    for a, b, true, false in _shuffled(rng, _relations(scene))[:12]:
        if _coin(rng):
            pair = "left or right of" if true in ("left", "right") else "above or below"
            asked.append(Question("spatial", f"is the {a.name} {pair} the {b.name} ?", true))
            continue
        holds = _coin(rng)
        phrase = _relation_phrase(true if holds else false)
        answer = "yes" if holds else "no"
        asked.append(Question("spatial", f"is the {a.name} {phrase} the {b.name} ?", answer))
    return asked


def side(scene: Scene, rng: np.random.Generator, margin: float = 20) -> list[Question]:
    """The half of the full image in which an object lies."""
    asked = []
    for s in unique_names(scene):
        right, down = (
            (share - 0.5) * side
            for share, side in zip(scene.share(s.x, s.y), scene.full, strict=True)
        )
        if abs(right) >= margin:
            answer = "left" if right < 0 else "right"
            asked.append(Question("side", f"is the {s.name} on the left or the right ?", answer))
        if abs(down) >= margin:
            answer = "top" if down < 0 else "bottom"
            asked.append(Question("side", f"is the {s.name} at the top or the bottom ?", answer))
    return _shuffled(rng, asked)


def _counts(scene: Scene) -> dict[int, list[str]]:
    """Number of objects -> the phrases (`red circles`, `stars`, `blue objects`) that have it."""
    tally: Counter[str] = Counter()
    for s in scene.shapes:
        tally.update((f"{s.color} {plural(s.shape)}", plural(s.shape), f"{s.color} objects"))
    grouped: dict[int, list[str]] = {}
    for phrase, count in sorted(tally.items()):
        if count <= len(NUMBERS):
            grouped.setdefault(count, []).append(phrase)
    return grouped


def count(scene: Scene, rng: np.random.Generator) -> list[Question]:
    """`how many red circles are there ?`, one to four; each possible number equally often."""
    grouped = _counts(scene)
    asked = []
    if not grouped:
        return []
    if set(grouped) == {1} and rng.random() < 0.7:
        return []  # else most answers would be `one`
    most = max(2, min(len(v) for v in grouped.values()))
    for number, phrases in sorted(grouped.items()):
        for phrase in _shuffled(rng, phrases)[:most]:
            asked.append(Question("count", f"how many {phrase} are there ?", NUMBERS[number - 1]))
    return _shuffled(rng, asked)


def code(scene: Scene, rng: np.random.Generator) -> list[Question]:
    """The three printed characters."""
    if scene.code is None:
        return []
    return [Question("code", "what code is printed ?", " ".join(scene.code.characters))]


def character(scene: Scene, rng: np.random.Generator) -> list[Question]:
    """One printed character by its place (training only)."""
    if scene.code is None:
        return []
    asked = [
        Question("character", f"what is the {place} printed character ?", c)
        for place, c in zip(ORDINALS, scene.code.characters, strict=True)
    ]
    return _shuffled(rng, asked)


def background(scene: Scene, rng: np.random.Generator) -> list[Question]:
    """The style of the background."""
    return [Question("background", "what is the background ?", scene.background.style)]


def locate(scene: Scene, rng: np.random.Generator) -> list[Question]:
    """Row and column, of six each, of an object (training only: it teaches positions)."""
    asked = []
    for s in unique_names(scene):
        column, row = (int(BINS * share) for share in scene.share(s.x, s.y))
        asked.append(Question("locate", f"where is the {s.name} ?", f"row{row} col{column}"))
    return _shuffled(rng, asked)


def _facts(scene: Scene) -> list[tuple[str, str, str, tuple[str, ...], tuple[str, ...]]]:
    """(topic, text, answer, likely wrong answers, other wrong answers): open questions on facts."""
    found: list[tuple[str, str, str, tuple[str, ...], tuple[str, ...]]] = []
    if (chart := scene.chart) is not None:
        ranked = [c for _, c in sorted(zip(chart.values, chart.colors, strict=True))]
        item = "bar" if chart.form == "bars" else "slice"
        least, most = RANKS[chart.form]
        for word, answer in ((least, ranked[0]), (most, ranked[-1])):
            near = tuple(c for c in chart.colors if c != answer)
            found.append(("chart", f"what color is the {word} {item} ?", answer, near, COLOR_NAMES))
    if (table := scene.table) is not None:
        for row, places in zip(table.cells, PLACES, strict=True):
            for cell, place in zip(row, places, strict=True):
                if cell is None:
                    continue
                others = [c for r in table.cells for c in r if c is not None]
                colors = tuple(dict.fromkeys(c for _, c in others if c != cell[1]))
                shapes = tuple(dict.fromkeys(s for s, _ in others if s != cell[0]))
                found += [
                    (
                        "diagram",
                        f"what color is in the {place} cell ?",
                        cell[1],
                        colors,
                        COLOR_NAMES,
                    ),
                    ("diagram", f"what shape is in the {place} cell ?", cell[0], shapes, SHAPES),
                ]
    if (arrows := scene.arrows) is not None:
        found.append(
            ("diagram", "which way do the arrows point ?", arrows.direction, DIRECTIONS, DIRECTIONS)
        )
        found.append(("diagram", "what color are the arrows ?", arrows.color, (), COLOR_NAMES))
    if scene.code is not None:
        for place, c in zip(ORDINALS, scene.code.characters, strict=True):
            text = f"what is the {place} printed character ?"
            found.append(("code", text, c, scene.code.characters, CHARACTERS))
    shapes_seen = Counter(s.shape for s in scene.shapes)
    seen = tuple(dict.fromkeys(s.color for s in scene.shapes))
    for s in scene.shapes:
        if shapes_seen[s.shape] == 1:
            text = f"what color is the {s.shape} ?"
            found.append(("scene", text, s.color, seen, COLOR_NAMES))
    if scene.kind == "scene":
        found.append(("scene", "what is the background ?", scene.background.style, (), BACKGROUNDS))
    return found


def _options(
    rng: np.random.Generator, answer: str, near: Sequence[str], others: Sequence[str]
) -> tuple[str, ...]:
    wrong = _shuffled(rng, sorted(set(near) - {answer}))[:2]
    rest = _shuffled(rng, sorted(set(others) - {answer, *wrong}))
    return tuple(_shuffled(rng, [answer, *(wrong + rest)[:3]]))


def multiple_choice(scene: Scene, rng: np.random.Generator) -> list[Question]:
    """Four options, answered by a letter; two wrong ones occur in the image where it has them."""
    asked = []
    for topic, text, answer, near, others in _shuffled(rng, _facts(scene)):
        options = _options(rng, answer, near, others)
        letter = OPTIONS[options.index(answer)]
        asked.append(Question("multiple_choice", text, letter, topic, options))
    return asked


def fact(scene: Scene, rng: np.random.Generator) -> list[Question]:
    """Charts and diagrams without options (training only)."""
    return [
        Question("fact", text, answer, topic)
        for topic, text, answer, _, _ in _shuffled(rng, _facts(scene))
        if topic in ("chart", "diagram")
    ]


def _pair(topic: str, true: str, false: str, rng: np.random.Generator) -> list[Question]:
    return _shuffled(
        rng, [Question("judge", true, "yes", topic), Question("judge", false, "no", topic)]
    )


def judge(scene: Scene, rng: np.random.Generator) -> list[Question]:
    """MME's form: a true and a false statement per topic; topics are named as MME's categories."""
    asked: list[Question] = []

    def pick(items: Sequence):
        return items[int(rng.integers(len(items)))]

    if scene.shapes:
        absent = absent_names(scene, "adversarial") or absent_names(scene, "random")
        present = pick(sorted({s.name for s in scene.shapes}))
        asked += _pair("existence", f"is there a {present} ?", f"is there a {pick(absent)} ?", rng)
    if grouped := _counts(scene):
        number = pick(sorted(grouped))
        phrase = pick(grouped[number])
        other = pick([n for n in NUMBERS if n != NUMBERS[number - 1]])
        asked += _pair("count", f"are there {NUMBERS[number - 1]} {phrase} ?",
                       f"are there {other} {phrase} ?", rng)  # fmt: skip
    if relations := _relations(scene):
        a, b, true, false = pick(relations)
        right, wrong = (
            f"is the {a.name} {_relation_phrase(each)} the {b.name} ?" for each in (true, false)
        )
        asked += _pair("position", right, wrong, rng)
    shapes = Counter(s.shape for s in scene.shapes)
    if single := [s for s in scene.shapes if shapes[s.shape] == 1]:
        s = pick(single)
        seen = sorted({o.color for o in scene.shapes} - {s.color})
        wrong = pick(seen or [c for c in COLOR_NAMES if c != s.color])
        asked += _pair("color", f"is the {s.shape} {s.color} ?", f"is the {s.shape} {wrong} ?", rng)
    if scene.code is not None:
        characters = list(scene.code.characters)
        changed = list(characters)
        for place in rng.permutation(3)[:2]:
            changed[place] = pick([c for c in CHARACTERS if c != characters[place]])
        asked += _pair("OCR", f"is the printed code {' '.join(characters)} ?",
                       f"is the printed code {' '.join(changed)} ?", rng)  # fmt: skip
    style = scene.background.style
    other_style = pick([b for b in BACKGROUNDS if b != style])
    asked += _pair(
        "scene", f"is the background {style} ?", f"is the background {other_style} ?", rng
    )
    return asked


FAMILIES: dict[str, Family] = {
    "existence": existence, "attribute": attribute, "spatial": spatial, "side": side,
    "count": count, "code": code, "background": background, "multiple_choice": multiple_choice,
    "judge": judge, "locate": locate, "character": character, "fact": fact,
}  # fmt: skip
TRAINING_ONLY = ("locate", "character", "fact")
EVALUATED = tuple(name for name in FAMILIES if name not in TRAINING_ONLY)


def ask(scene: Scene, rng: np.random.Generator, quota: dict[str, int]) -> list[Question]:
    """At most `quota[family]` questions of each family named there."""
    unknown = sorted(set(quota) - set(FAMILIES))
    if unknown:
        raise ValueError(f"unknown families {unknown}; choose from {', '.join(FAMILIES)}")
    return [q for name, n in quota.items() for q in FAMILIES[name](scene, rng)[:n]]
