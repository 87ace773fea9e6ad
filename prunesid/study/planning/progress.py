"""Progress of a study: the work of each stage for each benchmark, and how much of it is stored.

An arm is done once the store has the key of its result, made from everything that determines it.
A stage that leaves one file is done once that is no older than the code that makes it.
Nothing is computed and no model is loaded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

from prunesid.families.declared import Geometry
from prunesid.images.relevance import TEXT_TOWER, reading
from prunesid.pocket.benchmarks import BENCHMARKS as RENDERED
from prunesid.pocket.benchmarks import items
from prunesid.study.config.ablation import Ablation
from prunesid.study.config.arm import Arm
from prunesid.study.config.hub_models import TaskSize, hub_tasks
from prunesid.study.config.model import geometry_of
from prunesid.study.config.study import Benchmark, Study
from prunesid.study.files.features import Head, read_head
from prunesid.study.files.questions import Questions, read_questions
from prunesid.study.layout import Layout
from prunesid.study.planning.hardware import VALUE_BYTES, passes
from prunesid.study.planning.rates import Work
from prunesid.study.provenance.code import stage_files
from prunesid.study.provenance.contents import features_material, score_material
from prunesid.study.provenance.store import Store
from prunesid.study.stages.budgets import Budgets, read_budgets
from prunesid.study.stages.needs import needs_of, needs_text
from prunesid.study.stages.shard import Shard, shards
from prunesid.study.stages.source import Runtime, runtime_of

# Of CLIP's space of images and texts, in the ViT-L/14 that LLaVA's towers are.
JOINT_WIDTH = 768
# Parts whose features lie on disk at once with `features: drop`: while one is answered, tokens of
# another are chosen and a third is encoded.
PARTS_AT_ONCE = 3


@dataclass(frozen=True)
class Step:
    """One stage of one benchmark (or, for `compare` and `measure`, of one ablation).

    `of` and `done` count results: arms where the stage works arm by arm, else files. `left` is the
    work that remains.
    """

    stage: str
    name: str
    of: int
    done: int
    left: Work


def shape_of(study: Study, benchmark: Benchmark) -> Geometry:
    """The model's sizes for what a benchmark shows."""
    return geometry_of(study.model, study.frames_of(benchmark))


def largest_shape(study: Study) -> Geometry:
    """The model's sizes for the benchmark with the most tokens."""
    return max((shape_of(study, b) for b in study.encoded), key=lambda shape: shape.usual_tokens)


def size_of(study: Study, benchmark: Benchmark) -> TaskSize:
    """How many images and questions the study takes of a benchmark."""
    layout = Layout.of(study)
    data, scores = layout.data(benchmark.task), layout.scores(benchmark.name)
    if data.is_file():
        names = pq.read_table(data, columns=["image_id"])["image_id"]
        return TaskSize(len(names.unique()), len(names))
    if benchmark.task in RENDERED:
        asked = [len(own) for *_, own in items(RENDERED[benchmark.task], study.limit)]
        return TaskSize(len(asked), sum(asked))
    published = hub_tasks().get(benchmark.task, TaskSize())
    if scores.is_file():
        table = pd.read_parquet(scores, columns=["image_id", "question_id"])
        counts = {f"{of}s": table[f"{of}_id"].nunique() for of in ("image", "question")}
        return replace(published, **counts)
    heads = [head_of(layout.head(benchmark.name, shard)) for shard in shards(study.shards)]
    if None not in heads:
        encoded = sum(len(head.inputs) for head in heads if head is not None)
    elif study.limit is not None and published.images is not None:
        encoded = min(study.limit, published.images)
    else:
        return published
    share = encoded / published.images if published.images else None
    questions = round(share * published.questions) if share and published.questions else None
    return replace(published, images=encoded, questions=questions)


def steps(study: Study, sizes: Mapping[str, TaskSize]) -> list[Step]:
    """Every stage of every benchmark and ablation, in the order of the workflow."""
    layout = Layout.of(study)
    stored = stored_bytes(study, sizes)
    found = [
        step
        for b in study.encoded
        for step in _benchmark_steps(study, b, sizes[b.name], stored[b.name])
    ]
    unfinished = {step.name for step in found if step.done < step.of}
    unread = any(step.stage == "features" and step.done < step.of for step in found)
    parts = [
        layout.scores_of_images(b.name, s) for b in study.encoded for s in shards(study.shards)
    ]
    informed = not unread and is_fresh(layout.information, "information", parts)
    found.append(_file_step("information", "all images", informed, {}))
    for ablation in study.ablations:
        names = {b.name for b in study.benchmarks_of(ablation)}
        compared = not names & unfinished and is_fresh(
            layout.comparison(ablation.name), "compare", map(layout.scores, names)
        )
        amount = {"arms": len(ablation.arms) * len(names)}
        found.append(_file_step("compare", ablation.name, compared, amount))
        if ablation.latency is not None:
            clocked = ablation.clocked not in unfinished and is_fresh(
                layout.timings(ablation.name), "measure", arms=ablation.clocked_arms,
                model=study.model,
            )  # fmt: skip
            amount = {"requests": clocked_requests(ablation)}
            found.append(_file_step("measure", ablation.name, clocked, amount))
    return found


def clocked_requests(ablation: Ablation) -> int:
    """The requests of a clocked ablation's arms; each size of batch warms up with one batch."""
    options = ablation.latency
    if options is None:
        return 0
    batches = sum(options.questions // size * size for size in options.batches)
    return len(ablation.clocked_arms) * (options.rounds * batches + sum(options.batches))


def is_fresh(
    output: Path, stage: str, made_from: Iterable[Path] = (), arms: Iterable[Arm] = (),
    model: str = "",
) -> bool:  # fmt: skip
    """True for a file that is no older than its stage's code and what it is made from.

    arms, model  of a stage that runs them
    """
    if not output.is_file():
        return False
    older = (
        *stage_files(stage, arms, model).values(),
        *(path for path in made_from if path.is_file()),
    )
    return max(path.stat().st_mtime for path in older) <= output.stat().st_mtime


def head_of(features: Path) -> Head | None:
    """The head of a file of features; None where there is none that this version can read."""
    try:
        return read_head(features) if features.is_file() else None
    except ValueError:
        return None


@dataclass(frozen=True)
class _Part:
    """A shard: how many images and questions it has, and which of its files exist.

    head       of its features, where these are up to date
    budgets, questions  as the stages read them; only with a head
    """

    images: int
    asked: int
    store: Store
    runtime: Runtime
    head: Head | None = None
    budgets: Budgets = field(default_factory=dict)
    questions: Questions | None = None

    def selection(self, arm: Arm) -> Path | None:
        """The file of the tokens that the arm keeps; None if it is not stored."""
        if self.head is None:
            return None
        # Imported here: it imports torch, which takes seconds and which nothing else here needs.
        from prunesid.study.stages import encoding, selection

        if arm.encodes:
            determined = encoding.material_of(arm, self.head, self.runtime.model)
        else:
            try:
                budget = selection.budget_of(arm, tuple(self.head.inputs), self.budgets)
            except ValueError:  # the arm's budgets are yet to be shared out
                return None
            if arm.asked and self.questions is None:
                return None
            determined = selection.material_of(arm, budget, self.head, self.questions)
        return self.store.find(Store.key(determined))

    def answers(self, arm: Arm, kept: Path | None) -> str | None:
        """The key of the arm's answers, given the tokens that it kept; None if not known yet."""
        if self.head is None or (arm.selects and kept is None):
            return None
        from prunesid.study.stages import answers

        tokens = answers.tokens_of(kept, self.head, self.questions)
        return Store.key(answers.material_of(tokens, self.head, self.runtime, arm))


def _part(study: Study, benchmark: Benchmark, size: TaskSize, shard: Shard) -> _Part:
    layout, runtime, name = Layout.of(study), runtime_of(study), benchmark.name
    store, images = Store(layout.store), shard.take(range(size.images or 0), study.batch_size)
    share = len(images) / size.images if size.images else 0
    part = _Part(len(images), round(share * (size.questions or 0)), store, runtime)
    rendered = benchmark.task in RENDERED
    if rendered and not is_fresh(layout.data(benchmark.task), "images"):
        return part
    head = head_of(layout.head(name, shard))
    tower = dict(study.model_options).get(TEXT_TOWER)
    if head is None or head.needs != needs_text(needs_of(study.arms_of(name)), tower):
        return part
    if head.material != features_material(head.material["benchmark"], runtime, study.frames):
        return part
    budgets = read_budgets(layout.budgets, name) if layout.budgets.is_file() else {}
    asked = layout.questions(name, shard)
    questions = read_questions(asked) if asked.is_file() else None
    return replace(part, head=head, budgets=budgets, questions=questions)


def _benchmark_steps(
    study: Study, benchmark: Benchmark, size: TaskSize, stored: float
) -> Iterator[Step]:
    """The stages of a benchmark; of the calibration set, only its images and features.

    stored  bytes of an image's features (`stored_bytes`)
    """
    name = benchmark.name
    if benchmark.task in RENDERED:
        rendered = is_fresh(Layout.of(study).data(benchmark.task), "images")
        yield _file_step("images", name, rendered, {"images": size.images or 0})
    parts = [_part(study, benchmark, size, shard) for shard in shards(study.shards)]
    unread = [part for part in parts if part.head is None]
    step = _part_step("features", name, parts, unread, stored)
    if study.features == "drop" and benchmark in study.benchmarks:
        # Every image is encoded twice: the first pass is for the budgets.
        twice = {**step.left.amount, "images": 2 * step.left.amount["images"]}
        step = replace(step, left=replace(step.left, amount=twice))
    yield step
    if benchmark not in study.benchmarks:
        return
    if any(arm.asked for arm in study.arms_of(name)):
        unasked = [part for part in parts if part.head is None or part.questions is None]
        yield _part_step("questions", name, parts, unasked)
    yield from _arm_steps(study, benchmark, size, parts)


def _file_step(stage: str, name: str, done: bool, amount: Mapping[str, float]) -> Step:
    """A stage that leaves one file."""
    return Step(stage, name, 1, int(done), Work(stage, {} if done else {**amount, "jobs": 1}))


def _part_step(
    stage: str, name: str, parts: Sequence[_Part], left: Sequence[_Part], image_bytes: float = 0.0
) -> Step:
    """A stage that leaves one file of each part."""
    images = sum(part.images for part in left)
    amount = {
        "images": images,
        "questions": sum(part.asked for part in left),
        "jobs": len(left),
        "feature_bytes": images * image_bytes,
    }
    return Step(stage, name, len(parts), len(parts) - len(left), Work(stage, amount))


def _arm_steps(
    study: Study, benchmark: Benchmark, size: TaskSize, parts: Sequence[_Part]
) -> Iterator[Step]:
    """The stages of a benchmark that work arm by arm."""
    arms = study.arms_of(benchmark.name)
    stages = {
        "encode": [arm for arm in arms if arm.encodes],
        "select": [arm for arm in arms if arm.selects and not arm.encodes],
        "answer": arms,
        "score": arms,
    }
    left: dict[str, list[tuple[_Part, Arm]]] = {stage: [] for stage in stages}
    store, runtime = parts[0].store, parts[0].runtime
    whole = _Part(size.images or 0, size.questions or 0, store, runtime)
    filled = [part for part in parts if part.head is None or part.head.inputs]
    for arm in arms:
        chosen = [part.selection(arm) if arm.selects else None for part in filled]
        keys = [part.answers(arm, kept) for part, kept in zip(filled, chosen, strict=True)]
        for part, kept, key in zip(filled, chosen, keys, strict=True):
            if arm.selects and kept is None:
                left["encode" if arm.encodes else "select"].append((part, arm))
            if key is None or key not in store:
                left["answer"].append((part, arm))
        known = [key for key in keys if key is not None]
        if len(known) < len(keys) or _score_key(known, benchmark, arm) not in store:
            left["score"].append((whole, arm))
    shape = shape_of(study, benchmark)
    for stage, own in stages.items():
        if stage == "encode" and not own:  # there is no such job
            continue
        amount = _amount(left[stage], shape.usual_tokens, size.answer_tokens, study.batch_size)
        if stage == "encode":
            # Tokens of an encoder pass of their own are stored whole, all others as indices.
            token_bytes = shape.width * VALUE_BYTES[study.dtype]
            amount["feature_bytes"] = token_bytes * amount["tokens"]
        done = len(own) - len({arm.name for _, arm in left[stage]})
        yield Step(stage, benchmark.name, len(own), done, Work(stage, amount))


def _score_key(answers: Sequence[str], benchmark: Benchmark, arm: Arm) -> str:
    material = score_material(
        answers=answers, benchmark=benchmark.name, arm=arm.name, metric=benchmark.metric
    )
    return Store.key(material)


def _amount(
    left: Sequence[tuple[_Part, Arm]], tokens: int, answer_tokens: int, batch_size: int
) -> dict[str, int]:
    """The work of arms on parts, in measures of `rates`; an image has `tokens` before pruning."""
    amount = dict.fromkeys(("images", "tokens", "questions", "passes"), 0)
    for part, arm in left:
        # Where tokens are chosen by image and question, every question is an input.
        inputs = part.asked if arm.asked else part.images
        # What a late arm drops depends on the question, so that each question runs on its own.
        rows = part.asked if arm.is_late else inputs
        amount["images"] += inputs
        amount["questions"] += part.asked
        amount["tokens"] += rows * min(tokens, arm.budget or tokens)
        amount["passes"] += passes(inputs, part.asked, answer_tokens, batch_size, arm.is_late)
    return {**amount, "jobs": len({id(part) for part, _ in left}), "entries": len(left)}


def stored_bytes(study: Study, sizes: Mapping[str, TaskSize]) -> dict[str, float]:
    """{benchmark: bytes that the features of one image add to what lies on disk at once}.

    With `features: drop`, only a few parts lie there at once, of whichever benchmark. They are
    counted as parts of the benchmark with the largest features; all others count 0.
    """
    each = {benchmark.name: image_bytes(study, benchmark) for benchmark in study.encoded}
    if study.features == "keep":
        return each
    largest = max(study.benchmarks, key=lambda b: (sizes[b.name].images or 0) * each[b.name]).name
    share = min(1.0, PARTS_AT_ONCE / study.shards)
    return {**dict.fromkeys(each, 0.0), largest: share * each[largest]}


def image_bytes(study: Study, benchmark: Benchmark) -> float:
    """Bytes of the features of one image on disk."""
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
    per_token += needs.joint * JOINT_WIDTH * 4 // VALUE_BYTES[study.dtype]
    per_crop = shape.crop_tokens * per_token + shape.width
    return VALUE_BYTES[study.dtype] * shape.usual_crops * per_crop
