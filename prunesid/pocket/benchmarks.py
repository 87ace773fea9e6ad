"""The pocket benchmarks: held-out scenes with several questions each, rendered to parquet.

Each is the small counterpart of a benchmark in the paper:

* `pocket_pope`: is an object there? Yes and no alike, negatives by POPE's three strategies.
* `pocket_gqa`: attributes, relations, sides, counts, backgrounds; one or two words.
* `pocket_mme`: pairs of one true and one false statement per image and topic.
* `pocket_sqa`: multiple choice over charts, diagrams, printed codes and scenes.

`pocket_next_pope` and so on ask the same of images of up to 672 px, whose details a model sees in
sub-crops or with a second, sharper tower alone (`prunesid.pocket.next`, `prunesid.pocket.gemini`).

`pocket_qwen_pope` and so on ask the same, and more about places, of images of 100 to 400 tokens,
wide and tall (`prunesid.pocket.qwen`).

`pocket_video_*` ask about clips (`prunesid.pocket.video`), one or two words each:

* `pocket_video_tgif`: how many times does something appear?
* `pocket_video_msvd`: what moves, and which way?
* `pocket_video_msrvtt`: what appears or vanishes?
* `pocket_video_activitynet`: what appears first, second or last, and before what?

`pocket_calibration` has no counterpart in the paper. It serves to tune settings without looking at
the four benchmarks: other images in the same mixture, with the questions of `pocket_sqa`.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prunesid.core.files import atomic
from prunesid.pocket.drawing import draw
from prunesid.pocket.next import scenes as next_scenes
from prunesid.pocket.questions import Question, ask, existence, judge, multiple_choice
from prunesid.pocket.qwen import questions as qwen_questions
from prunesid.pocket.qwen import scenes as qwen_scenes
from prunesid.pocket.scenes import Scene, sample_scene
from prunesid.pocket.video import questions as video_questions
from prunesid.pocket.video.clips import Film, sample_film
from prunesid.pocket.video.files import video_of

# Training draws from seeds that begin with 1 to 6; a test checks that no rendered image recurs.
HELD_OUT_SEED = 7_000_000


def _sample(rng: np.random.Generator, kind: str) -> Scene:
    return sample_scene(rng, kind=kind)


@dataclass(frozen=True)
class PocketBenchmark:
    """`images` scenes or clips, of the given kinds in turn, each with the questions of `ask`.

    sample  draws a scene or a clip of a kind
    """

    name: str
    seed: int
    images: int
    kinds: tuple[str, ...]
    ask: Callable[[Any, np.random.Generator], list[Question]]
    sample: Callable[[np.random.Generator, str], Scene | Film] = _sample


def _pope(scene: Scene, rng: np.random.Generator) -> list[Question]:
    asked = existence(scene, rng)
    yes = [q for q in asked if q.answer == "yes"][:4]
    no = [q for q in asked if q.answer == "no"][: len(yes)]
    return yes + no


def _gqa(scene: Scene, rng: np.random.Generator) -> list[Question]:
    quota = {"attribute": 2, "spatial": 2, "side": 2, "count": 2, "background": 1}
    return ask(scene, rng, quota)


def _qwen_gqa(scene: Scene, rng: np.random.Generator) -> list[Question]:
    quota = {"attribute": 1, "spatial": 2, "side": 1, "corner": 1, "place": 2, "count": 1}
    return qwen_questions.ask(scene, rng, quota)


def _sqa(scene: Scene, rng: np.random.Generator) -> list[Question]:
    return multiple_choice(scene, rng)[:4]


def _clips(film: Film, rng: np.random.Generator) -> list[Question]:
    return video_questions.ask(film, rng, 1)


_SCENES, _WITH_CODES = ("scene",), ("scene", "code")
_ALL_KINDS = ("chart", "diagram", "code", "scene")
_NEXT, _QWEN = next_scenes.sample_scene, qwen_scenes.sample_scene
# The images of the four benchmarks are 67 % scenes, 18 % codes, 8 % charts and 8 % diagrams.
_MIXTURE = (*["scene"] * 4, "code", "chart", *["scene"] * 4, "code", "diagram")

BENCHMARKS = {
    b.name: b
    for b in (
        PocketBenchmark("pocket_pope", 1, 180, _SCENES, _pope),
        PocketBenchmark("pocket_gqa", 2, 200, _SCENES, _gqa),
        PocketBenchmark("pocket_mme", 3, 150, _WITH_CODES, judge),
        PocketBenchmark("pocket_sqa", 4, 240, _ALL_KINDS, _sqa),
        PocketBenchmark("pocket_calibration", 5, 240, _MIXTURE, _sqa),
        PocketBenchmark("pocket_next_pope", 11, 130, _SCENES, _pope, _NEXT),
        PocketBenchmark("pocket_next_gqa", 12, 130, _SCENES, _gqa, _NEXT),
        PocketBenchmark("pocket_next_mme", 13, 100, _WITH_CODES, judge, _NEXT),
        PocketBenchmark("pocket_next_sqa", 14, 200, _ALL_KINDS, _sqa, _NEXT),
        PocketBenchmark("pocket_qwen_pope", 31, 130, _SCENES, _pope, _QWEN),
        PocketBenchmark("pocket_qwen_gqa", 32, 130, _SCENES, _qwen_gqa, _QWEN),
        PocketBenchmark("pocket_qwen_mme", 33, 100, _WITH_CODES, judge, _QWEN),
        PocketBenchmark("pocket_qwen_sqa", 34, 200, _ALL_KINDS, _sqa, _QWEN),
        PocketBenchmark("pocket_video_tgif", 21, 330, ("repetition",), _clips, sample_film),
        PocketBenchmark("pocket_video_msvd", 22, 180, ("motion",), _clips, sample_film),
        PocketBenchmark("pocket_video_msrvtt", 23, 220, ("change",), _clips, sample_film),
        PocketBenchmark("pocket_video_activitynet", 24, 120, ("order",), _clips, sample_film),
    )
}


def benchmark(name: str) -> PocketBenchmark:
    """The pocket benchmark called `name`."""
    if name not in BENCHMARKS:
        raise ValueError(f"unknown pocket benchmark {name!r}; choose from {', '.join(BENCHMARKS)}")
    return BENCHMARKS[name]


def items(
    chosen: PocketBenchmark, limit: int | None = None
) -> Iterator[tuple[str, Scene | Film, list[Question]]]:
    """(image id, scene or clip, questions) of the first `limit` images that have any questions."""
    made = index = 0
    wanted = chosen.images if limit is None else min(limit, chosen.images)
    while made < wanted:
        rng = np.random.default_rng([HELD_OUT_SEED, chosen.seed, index])
        scene = chosen.sample(rng, chosen.kinds[index % len(chosen.kinds)])
        asked = chosen.ask(scene, rng)
        if asked:
            yield f"{chosen.name}-{index:05d}", scene, asked
            made += 1
        index += 1


def _shown(scene: Scene | Film) -> dict[str, Any]:
    """The column that holds what a question shows: a PNG or a video file."""
    if isinstance(scene, Film):
        return {"video": video_of(scene)}
    buffer = io.BytesIO()
    draw(scene)[0].save(buffer, "PNG", compress_level=1)
    return {"image": {"bytes": buffer.getvalue(), "path": None}}


def _category(chosen: PocketBenchmark, question: Question) -> str:
    if chosen.ask is _pope:
        return question.topic or "present"
    return question.topic or question.family


def render(name: str, path: Path, limit: int | None = None) -> None:
    """Write one benchmark as parquet (one row per question, the image as an HF Image column).

    Columns: image, or video with the bytes of a file; image_id, question_id,
    question, answer, category, choices.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq
    from datasets import Features, Image, List, Value

    chosen = benchmark(name)
    rows: list[dict[str, Any]] = []
    for image_id, scene, asked in items(chosen, limit):
        shown = _shown(scene)
        for number, question in enumerate(asked):
            rows.append(
                {
                    **shown,
                    "image_id": image_id,
                    "question_id": f"{image_id}-{number}",
                    "question": question.text,
                    "answer": question.answer,
                    "category": _category(chosen, question),
                    "choices": list(question.options),
                }
            )
    text = Value("string")
    column = {"image": Image()} if "image" in rows[0] else {"video": Value("binary")}
    features = Features({
        **column, "image_id": text, "question_id": text, "question": text,
        "answer": text, "category": text, "choices": List(text),
    })  # fmt: skip
    table = pa.Table.from_pylist(rows, schema=features.arrow_schema)
    with atomic(path) as temporary:
        # Each question's row has its image; a dictionary page stores it once.
        pq.write_table(table, temporary, row_group_size=256, dictionary_pagesize_limit=2**27)
