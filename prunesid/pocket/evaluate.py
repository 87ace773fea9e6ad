"""Accuracy of an embedded model per question family, with its image and blind.

    python -m prunesid.pocket.evaluate --model prunesid/pocket/weights --out card.json

The blind accuracy is measured twice: with a gray image, and with the image of another question,
whose tokens look right but show the wrong scene. Both compare with the best guess without an image:
the most frequent answer of the family, or of the question's wording with its names left out.

A model that sees sub-crops is also asked with the base crop's tokens alone. One with a second,
sharper tower is asked with nothing mined from it, and with images that have no more details than
its first tower is shown. One whose tokens have rows and columns as positions is asked with all
tokens at one position, and with rows and columns swapped. One that sees clips is asked with the
frame in the middle alone, and with the frames in another order.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from prunesid.core.files import atomic
from prunesid.core.questions import Question as Asked
from prunesid.core.record import Kept
from prunesid.families.mini_gemini import MiniGemini
from prunesid.families.qwen2_vl import Qwen2VL
from prunesid.generate.engine import answer
from prunesid.images.media import Clip
from prunesid.images.records import ImageRecords
from prunesid.pocket import WEIGHTS
from prunesid.pocket.benchmarks import HELD_OUT_SEED
from prunesid.pocket.drawing import draw
from prunesid.pocket.next import scenes as next_scenes
from prunesid.pocket.questions import EVALUATED, Question, ask
from prunesid.pocket.qwen import questions as qwen_questions
from prunesid.pocket.qwen import scenes as qwen_scenes
from prunesid.pocket.scenes import Scene, sample_scene
from prunesid.pocket.video import questions as video_questions
from prunesid.pocket.video.clips import MOMENTS, Film, moments, sample_film
from prunesid.pocket.video.files import FPS
from prunesid.pocket.vocabulary import CHARACTERS, COLOR_NAMES, NUMBERS, SHAPES, plural

_SEED_OF_CARD = 99
# Model type -> the scenes that it was trained on.
_SAMPLE: dict[str, Callable[[np.random.Generator], Scene | Film]] = {
    "llava": sample_scene,
    "llava_next": next_scenes.sample_scene,
    "mini_gemini": next_scenes.sample_scene,
    "qwen2_vl": qwen_scenes.sample_scene,
    "video_llava": sample_film,
}
_FAMILIES = tuple(dict.fromkeys((*qwen_questions.EVALUATED, *video_questions.FAMILIES)))
_NAMES = {*SHAPES, *COLOR_NAMES, *CHARACTERS, *NUMBERS, *(plural(s) for s in SHAPES)}


@dataclass(frozen=True)
class HeldOut:
    """Scenes or clips that no training step and no benchmark shows, and all their questions."""

    scenes: list[Any]
    questions: list[list[Question]]


def held_out(images: int, model_type: str = "llava") -> HeldOut:
    """`images` scenes as a model knows them, with up to three questions per family."""
    scenes, questions = [], []
    for index in range(images):
        rng = np.random.default_rng([HELD_OUT_SEED, _SEED_OF_CARD, index])
        scenes.append(_SAMPLE[model_type](rng))
        questions.append(_asked(scenes[-1], rng, model_type))
    return HeldOut(scenes, questions)


def _asked(scene: Scene | Film, rng: np.random.Generator, model_type: str) -> list[Question]:
    if isinstance(scene, Film):
        return video_questions.ask(scene, rng, 2)
    if model_type == "qwen2_vl":
        return qwen_questions.ask(scene, rng, dict.fromkeys(qwen_questions.EVALUATED, 3))
    return ask(scene, rng, dict.fromkeys(EVALUATED, 3))


def shown(scene: Scene | Film) -> Image.Image | Clip:
    """What a model sees: a picture, or a clip of the moments."""
    return clip_of(moments(scene)[0]) if isinstance(scene, Film) else draw(scene)[0]


def clip_of(frames: np.ndarray) -> Clip:
    """A clip of MOMENTS frames."""
    return Clip(frames, tuple(range(MOMENTS)), MOMENTS, FPS / 2)


def grayed(medium: Image.Image | Clip) -> Image.Image | Clip:
    """The same without anything to see."""
    if isinstance(medium, Clip):
        return clip_of(np.full_like(medium.frames, 128))
    return Image.new("RGB", medium.size, (128,) * 3)


def middle(clip: Clip) -> Clip:
    """The frame in the middle, as often as there are frames."""
    return clip_of(np.repeat(clip.frames[MOMENTS // 2][None], MOMENTS, 0))


def shuffled(clip: Clip, seed: int) -> Clip:
    """The frames in another order."""
    rng = np.random.default_rng([HELD_OUT_SEED, _SEED_OF_CARD, seed])
    return clip_of(clip.frames[rng.permutation(MOMENTS)])


def _wording(question: Question) -> str:
    """The question without the names in it and without its options."""
    return " ".join("*" if word in _NAMES else word for word in question.text.split())


def best_guess(questions: Sequence[Sequence[Question]]) -> dict[str, float]:
    """Accuracy (%) per family of the most frequent answer to each wording.

    It bounds the accuracy without an image from above, since the answers are chosen on the very
    questions that they are scored on.
    """
    tally: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    for asked in questions:
        for question in asked:
            tally[question.family][_wording(question)][question.answer] += 1
    return {
        family: 100
        * sum(c.most_common(1)[0][1] for c in wordings.values())
        / sum(c.total() for c in wordings.values())
        for family, wordings in tally.items()
    }


def all_tokens(records: ImageRecords) -> Kept:
    return records.all_tokens()


def base_crop(records: ImageRecords) -> Kept:
    """The tokens of each image's first crop."""
    later = torch.ones(len(records.sizes), dtype=torch.bool)
    later[[medium.rows[0] for media in records.inputs.values() for medium in media]] = False
    return records.all_tokens().without(later)


def silence(adapter) -> None:
    """Make all that a Mini-Gemini mines for its patches zero, for good."""
    value = adapter.model.model.mining.value[-1]
    torch.nn.init.zeros_(value.weight)
    torch.nn.init.zeros_(value.bias)


@contextmanager
def moved(adapter, where: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Give the visual tokens the rotary positions `where` makes of their own (3, V)."""
    enter = adapter.enter

    def wrong(crops, layout):
        found = enter(crops, layout)
        return replace(found, positions=where(found.positions))

    adapter.enter = wrong
    try:
        yield
    finally:
        del adapter.enter


def one_place(positions: Tensor) -> Tensor:
    """All tokens at the first one's position."""
    return torch.zeros_like(positions)


def swapped(positions: Tensor) -> Tensor:
    """Rows and columns (time, row, column) in each other's place."""
    return positions[[0, 2, 1]]


def coarse(picture: Image.Image) -> Image.Image:
    """A picture of even width and height with each 2 x 2 pixels replaced by their mean."""
    width, height = picture.size
    smaller = picture.resize((width // 2, height // 2), Image.Resampling.BOX)
    return smaller.resize(picture.size, Image.Resampling.NEAREST)


def accuracy(
    adapter,
    pictures: Sequence[Image.Image | Clip],
    questions: Sequence[Sequence[Question]],
    keep: Callable[[ImageRecords], Kept] = all_tokens,
    batch_size: int = 16,
) -> dict[str, float]:
    """Exact match (%) per family with the tokens of `keep`, picture i answering `questions[i]`."""
    right: dict[str, list[bool]] = defaultdict(list)
    for start in range(0, len(pictures), batch_size):
        rows = range(start, min(start + batch_size, len(pictures)))
        names = [str(i) for i in rows]
        inputs = adapter.preprocess([pictures[i] for i in rows])
        records = adapter.encode(inputs, names=names)
        flat = [(i, n, q) for i in rows for n, q in enumerate(questions[i])]
        asked = [Asked(f"{i}-{n}", str(i), q.prompt, {"max_new_tokens": 6}) for i, n, q in flat]
        kept = keep(records)
        given = answer(adapter, kept, records.inputs, asked, batch_size=batch_size)
        for (_, _, question), found in zip(flat, given, strict=True):
            right[question.family].append(found.answer == question.answer)
    return {family: 100 * float(np.mean(scores)) for family, scores in right.items()}


def evaluate(model: Path, images: int) -> dict[str, dict[str, float]]:
    """Accuracy (%) per family: `seen`, `gray`, `other`, and `guess`; plus `questions` counted.

    A model that sees sub-crops has `base`, too, a Mini-Gemini `silenced` and `coarse`, one with
    M-RoPE `one_place` and `swapped`, and one that sees clips `middle` and `shuffled`.
    """
    from prunesid.families import load

    adapter = load(model)
    data = held_out(images, adapter.model.config.model_type)
    pictures = [shown(scene) for scene in data.scenes]
    gray = [grayed(picture) for picture in pictures]
    counted = Counter(q.family for asked in data.questions for q in asked)
    found = {
        "questions": {family: float(n) for family, n in counted.items()},
        "guess": best_guess(data.questions),
        "seen": accuracy(adapter, pictures, data.questions),
        "gray": accuracy(adapter, gray, data.questions),
        "other": accuracy(adapter, pictures[1:] + pictures[:1], data.questions),
    }
    if adapter.most_crops > 1:
        found["base"] = accuracy(adapter, pictures, data.questions, base_crop)
    if clips := [picture for picture in pictures if isinstance(picture, Clip)]:
        others = [shuffled(clip, number) for number, clip in enumerate(clips)]
        found["middle"] = accuracy(adapter, [middle(clip) for clip in clips], data.questions)
        found["shuffled"] = accuracy(adapter, others, data.questions)
    if isinstance(adapter, Qwen2VL):
        for where in (one_place, swapped):
            with moved(adapter, where):
                found[where.__name__] = accuracy(adapter, pictures, data.questions)
    if isinstance(adapter, MiniGemini):
        found["coarse"] = accuracy(
            adapter, [coarse(p) for p in pictures if not isinstance(p, Clip)], data.questions
        )
        silence(adapter)
        found["silenced"] = accuracy(adapter, pictures, data.questions)
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=WEIGHTS)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--images", type=int, default=500)
    options = parser.parse_args(arguments)
    found = evaluate(options.model, options.images)
    with atomic(options.out) as temporary:
        temporary.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    order = (
        *("questions", "seen", "base", "silenced", "coarse"),
        *("one_place", "swapped", "middle", "shuffled"),
    )
    columns = [c for c in (*order, "gray", "other", "guess") if c in found]
    print(f"{'family':<16}" + "".join(f"{c:>10}" for c in columns))
    for family in (name for name in _FAMILIES if name in found["questions"]):
        print(f"{family:<16}" + "".join(f"{found[c].get(family, 0):>10.1f}" for c in columns))


if __name__ == "__main__":
    main()
