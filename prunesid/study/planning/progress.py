"""How far a study is: what each stage has to do for each benchmark, and what of it is stored.

An arm counts as done where the key of its result, made from everything that determines it, is in
the store; a stage that leaves one file, where that is not older than the code that makes it. Nothing
is computed and no model is loaded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

from prunesid.families.declared import Geometry
from prunesid.images.relevance import TEXT_TOWER, reading
from prunesid.pocket.benchmarks import BENCHMARKS as RENDERED
from prunesid.pocket.benchmarks import items
from prunesid.study.config.arm import Arm
from prunesid.study.config.model import geometry_of
from prunesid.study.config.study import Benchmark, Study
from prunesid.study.files import kept as kept_file
from prunesid.study.files.features import Head, read_head
from prunesid.study.files.questions import Questions, read_questions
from prunesid.study.planning.hardware import BYTES, passes
from prunesid.study.planning.published_models import PublishedTask, published_task
from prunesid.study.planning.rates import Work
from prunesid.study.provenance.code import files_behind
from prunesid.study.provenance.contents import features_material, score_material
from prunesid.study.provenance.store import Store
from prunesid.study.stages import answers, encoding, selection
from prunesid.study.stages.budgets import Budgets, read_budgets
from prunesid.study.stages.needs import needs_of, needs_text
from prunesid.study.stages.shard import WHOLE, Shard, shards
from prunesid.study.stages.source import Runtime, runtime_of

# Of CLIP's space of images and texts, in the ViT-L/14 that LLaVA's towers are.
JOINT_WIDTH = 768


@dataclass(frozen=True)
class Size:
    """Images and questions of a benchmark, None where nothing tells, and tokens of an answer."""

    images: int | None
    questions: int | None
    answer_tokens: int = 4


@dataclass(frozen=True)
class Step:
    """One stage of one benchmark (or, for `compare`, of one ablation).

    `of` and `done` count results: arms where the stage works arm by arm, else the one file. `left`
    is what is to be done, `bytes` what that leaves on disk.
    """

    stage: str
    name: str
    of: int
    done: int
    left: Work
    bytes: float = 0.0


@dataclass(frozen=True)
class Layout:
    """Where the workflow puts the files of a study."""

    results: Path
    model: Path

    @staticmethod
    def of(study: Study) -> Layout:
        return Layout(study.results, study.results / study.model_name)

    @property
    def store(self) -> Path:
        return self.results / "store"

    def data(self, task: str) -> Path:
        return self.results / "pocket" / "data" / f"{task}.parquet"

    def features(self, benchmark: str, shard: Shard = WHOLE) -> Path:
        return self.model / benchmark / str(shard) / "features.safetensors"

    def questions(self, benchmark: str, shard: Shard = WHOLE) -> Path:
        return self.model / benchmark / str(shard) / "questions.safetensors"

    def time(self, benchmark: str, stage: str, shard: Shard = WHOLE) -> Path:
        return self.model / benchmark / str(shard) / "times" / f"{stage}.tsv"

    def scores(self, benchmark: str) -> Path:
        return self.model / benchmark / "scores.parquet"

    def comparison(self, ablation: str) -> Path:
        return self.model / "ablations" / ablation / "comparison.csv"


def shape_of(study: Study, benchmark: Benchmark) -> Geometry:
    """The model's sizes for what a benchmark shows."""
    return geometry_of(study.model, study.frames_of(benchmark))


def largest_shape(study: Study) -> Geometry:
    """The model's sizes for what has most tokens of all that the study shows."""
    return max((shape_of(study, b) for b in study.encoded), key=lambda shape: shape.usual_tokens)


def size_of(study: Study, benchmark: Benchmark) -> Size:
    """How many images and questions the study takes of a benchmark."""
    places = Layout.of(study)
    data = places.data(benchmark.task)
    if data.is_file():
        table = pq.read_table(data, columns=["image_id"])
        return Size(len(table["image_id"].unique()), table.num_rows)
    if benchmark.task in RENDERED:
        asked = [len(own) for *_, own in items(RENDERED[benchmark.task], study.limit)]
        return Size(len(asked), sum(asked))
    published = published_task(benchmark.task) or PublishedTask()
    tokens = published.answer_tokens
    scores = places.scores(benchmark.name)
    if scores.is_file():
        table = pd.read_parquet(scores, columns=["question_id", "image_id"])
        return Size(table["image_id"].nunique(), table["question_id"].nunique(), tokens)
    images, questions = published.images, published.questions
    heads = [head_of(places.features(benchmark.name, shard)) for shard in shards(study.shards)]
    whole = [len(head.inputs) for head in heads if head is not None]
    encoded = sum(whole) if len(whole) == study.shards else None
    if encoded is None and study.limit is not None and images is not None:
        encoded = min(study.limit, images)
    if encoded is not None:
        share = encoded / images if images else None
        taken = round(share * questions) if share and questions else None
        return Size(encoded, taken, tokens)
    return Size(images, questions, tokens)


def steps(study: Study, sizes: dict[str, Size]) -> Iterator[Step]:
    """Every stage of every benchmark and ablation, in the order of the workflow."""
    places = Layout.of(study)
    open_benchmarks = set()
    unread = 0
    for benchmark in study.encoded:
        images = sizes[benchmark.name].images or 0
        if benchmark.task in RENDERED:
            rendered = is_fresh(places.data(benchmark.task), "images")
            work = Work("images", {} if rendered else {"images": images, "jobs": 1})
            yield Step("images", benchmark.name, 1, int(rendered), work, work.bytes)
        parts = _parts(study, benchmark, sizes[benchmark.name], places)
        to_encode = [part.images for part in parts if part.state is None]
        unread += sum(to_encode)
        work = Work(
            "features", {"images": sum(to_encode), "jobs": len(to_encode)} if to_encode else {}
        )
        volume = sum(to_encode) * image_bytes(study, benchmark)
        done = len(parts) - len(to_encode)
        yield Step("features", benchmark.name, len(parts), done, work, volume)
        asking = [arm for arm in study.arms_of(benchmark.name) if arm.asked]
        if asking and benchmark in study.benchmarks:
            yield _questions_step(study, benchmark, parts, places)
        if benchmark in study.benchmarks:
            for step in _arm_steps(study, benchmark, sizes[benchmark.name], parts):
                if step.done < step.of:
                    open_benchmarks.add(benchmark.name)
                yield step
    features = [
        places.features(b.name, shard) for b in study.encoded for shard in shards(study.shards)
    ]
    informed = not unread and is_fresh(
        places.model / "information.parquet", "information", features
    )
    images = sum(size.images or 0 for size in sizes.values())
    work = Work("information", {} if informed else {"images": images, "jobs": 1})
    yield Step("information", "all images", 1, int(informed), work)
    for ablation in study.ablations:
        chosen = {b.name for b in study.benchmarks_of(ablation)}
        scores = [places.scores(name) for name in chosen]
        compared = not chosen & open_benchmarks and is_fresh(
            places.comparison(ablation.name), "compare", scores
        )
        amount = {} if compared else {"arms": len(ablation.arms) * len(chosen), "jobs": 1}
        yield Step("compare", ablation.name, 1, int(compared), Work("compare", amount))


def is_fresh(output: Path, stage: str, made_from: Iterable[Path] = ()) -> bool:
    """Whether a file is there, and older neither than the code of its stage nor than what it is made from."""
    if not output.is_file():
        return False
    older = (*files_behind(stage).values(), *(path for path in made_from if path.is_file()))
    return max(path.stat().st_mtime for path in older) <= output.stat().st_mtime


def _questions_step(
    study: Study, benchmark: Benchmark, parts: Sequence[_Part], places: Layout
) -> Step:
    """Encoding what is asked, for arms that choose by image and question."""
    left = [
        part for part, shard in zip(parts, shards(study.shards), strict=True)
        if part.state is None or not places.questions(benchmark.name, shard).is_file()
    ]  # fmt: skip
    amount = {"questions": sum(part.questions for part in left), "jobs": len(left)} if left else {}
    return Step(
        "questions", benchmark.name, len(parts), len(parts) - len(left), Work("questions", amount)
    )


def head_of(features: Path) -> Head | None:
    """The head of a file of features; None where there is none that this version can read."""
    try:
        return read_head(features) if features.is_file() else None
    except ValueError:
        return None


@dataclass(frozen=True)
class _State:
    """What is there of a benchmark's shard whose features are up to date."""

    store: Store
    runtime: Runtime
    head: Head
    budgets: Budgets
    questions: Questions | None

    @staticmethod
    def of(study: Study, benchmark: Benchmark, shard: Shard, places: Layout) -> _State | None:
        data = places.data(benchmark.task)
        if benchmark.task in RENDERED and not is_fresh(data, "images"):
            return None
        head, runtime = head_of(places.features(benchmark.name, shard)), runtime_of(study)
        if head is None:
            return None
        current = features_material(head.material["benchmark"], runtime, study.frames)
        tower = dict(study.model_options).get(TEXT_TOWER)
        needed = needs_text(needs_of(study.arms_of(benchmark.name)), tower)
        if head.material != current or head.needs != needed:
            return None
        budgets, asked = places.model / "budgets.parquet", places.questions(benchmark.name, shard)
        return _State(
            Store(places.store), runtime, head,
            read_budgets(budgets, benchmark.name) if budgets.is_file() else {},
            read_questions(asked) if asked.is_file() else None,
        )  # fmt: skip

    def selection(self, arm: Arm) -> Path | None:
        """The tokens that the arm keeps, where they are stored."""
        if arm.encodes:
            return self.store.find(
                Store.key(encoding.material_of(arm, self.head, self.runtime.model))
            )
        try:
            budget = selection.budget_of(arm, tuple(self.head.inputs), self.budgets)
        except ValueError:  # the arm's budgets are yet to be shared out
            return None
        if arm.asked and self.questions is None:
            return None
        determined = selection.material_of(arm, budget, self.head, self.questions)
        return self.store.find(Store.key(determined))

    def answers(self, arm: Arm) -> str | None:
        """The key of the arm's answers, where it can be known."""
        tokens = answers.ALL
        if arm.selects:
            kept = self.selection(arm)
            if kept is None:
                return None
            sizes = self.head.sizes
            if arm.asked and self.questions is not None:
                sizes = [sizes[row] for row in self.questions.rows(self.head.inputs)[1]]
            tokens = kept_file.kept_digest(kept)
            if tokens == kept_file.whole_digest(sizes, by_question=bool(arm.asked)):
                tokens = answers.ALL
        return Store.key(answers.material_of(tokens, self.head, self.runtime, arm))


@dataclass(frozen=True)
class _Part:
    """A shard: its images and questions, and what is there of it, if its features are."""

    images: int
    questions: int
    state: _State | None

    @property
    def is_empty(self) -> bool:
        return self.state is not None and not self.state.head.inputs


def _parts(study: Study, benchmark: Benchmark, size: Size, places: Layout) -> list[_Part]:
    found = []
    for shard in shards(study.shards):
        state = _State.of(study, benchmark, shard, places)
        images = len(shard.take(range(size.images or 0), study.batch_size))
        share = images / size.images if size.images else 0
        found.append(_Part(images, round(share * (size.questions or 0)), state))
    return found


def _arm_steps(
    study: Study, benchmark: Benchmark, size: Size, parts: list[_Part]
) -> Iterator[Step]:
    arms = study.arms_of(benchmark.name)
    shape = shape_of(study, benchmark)
    encode, select, answer, score = (
        _Left(of, shape.usual_tokens, size.answer_tokens, study.batch_size)
        for of in (
            [arm for arm in arms if arm.encodes],
            [arm for arm in arms if arm.selects and not arm.encodes],
            arms,
            arms,
        )
    )
    keys: dict[str, list[str]] = {arm.name: [] for arm in arms}
    for part in parts:
        if part.is_empty:
            continue
        for arm in arms:
            if arm.selects and (part.state is None or part.state.selection(arm) is None):
                (encode if arm.encodes else select).add(part, arm)
            key = part.state.answers(arm) if part.state else None
            if part.state is None or key is None or key not in part.state.store:
                answer.add(part, arm)
            if key is not None:
                keys[arm.name].append(key)
    store, full = Store(Layout.of(study).store), sum(not part.is_empty for part in parts)
    everything = _Part(size.images or 0, size.questions or 0, None)
    for arm in arms:
        own = keys[arm.name]
        if len(own) < full or not _scored(store, benchmark, arm, own):
            score.add(everything, arm)
    for stage, left, amount in (
        ("encode", encode, {"images": encode.images, "tokens": encode.tokens}),
        ("select", select, {"images": select.images, "tokens": select.tokens}),
        ("answer", answer,
         {"tokens": answer.tokens, "questions": answer.questions, "passes": answer.passes}),
        ("score", score, {"questions": score.questions}),
    ):  # fmt: skip
        of, number = len(left.arms), len(left.names)
        if stage == "encode" and not of:  # there is no such job
            continue
        work = Work(stage, amount | {"jobs": len(left.parts)} if number else {}, left.entries)
        # Tokens of a pass of their own are stored whole, those of others by number.
        token = shape.width * BYTES[study.dtype] if stage == "encode" else 0
        yield Step(stage, benchmark.name, of, of - number, work, work.bytes + token * left.tokens)


class _Left:
    """What a stage of a benchmark has to do, by what it is paid for; `arms` are all of the stage."""

    def __init__(
        self, arms: Sequence[Arm], whole: int, answer_tokens: int, batch_size: int
    ) -> None:
        self.arms = arms
        self.names: set[str] = set()
        self.parts: set[int] = set()
        self.images = self.tokens = self.questions = self.passes = self.entries = 0
        self._whole, self._answer_tokens, self._batch = whole, answer_tokens, batch_size

    def add(self, part: _Part, arm: Arm) -> None:
        """An arm on a part."""
        self.names.add(arm.name)
        self.parts.add(id(part))
        self.entries += 1
        # Where tokens are chosen by image and question, every question is an input.
        inputs = part.questions if arm.asked else part.images
        self.images += inputs
        self.questions += part.questions
        # What a late arm drops depends on the question, so that each question runs on its own.
        rows = part.questions if arm.is_late else inputs
        self.tokens += rows * min(self._whole, arm.budget or self._whole)
        self.passes += passes(inputs, part.questions, self._answer_tokens, self._batch, arm.is_late)


def _scored(store: Store, benchmark: Benchmark, arm: Arm, answer_keys: list[str]) -> bool:
    material = score_material(
        answers=answer_keys, benchmark=benchmark.name, arm=arm.name, metric=benchmark.metric
    )
    return Store.key(material) in store


def image_bytes(study: Study, benchmark: Benchmark) -> float:
    """What the features of one image take on disk."""
    shape, tower = shape_of(study, benchmark), dict(study.model_options).get(TEXT_TOWER)
    needs = reading(needs_of(study.arms_of(benchmark.name)), tower)
    per_token = shape.width + shape.tower.width * len(needs.layers)
    per_token += shape.tower.width * (needs.keys + needs.last_keys)
    per_token += needs.cls_attention * shape.tower.heads
    per_token += needs.last_attention + needs.last_cls_attention
    # Only where images come in crops; a fraction of a thousandth.
    per_token += needs.first_cls_attention
    per_token += needs.projected * shape.decoder.width
    # In float32, whatever the model's type.
    per_token += needs.joint * JOINT_WIDTH * 4 // BYTES[study.dtype]
    per_crop = shape.crop_tokens * per_token + shape.width
    return BYTES[study.dtype] * shape.usual_crops * per_crop
