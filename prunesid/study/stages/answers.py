"""The answers of all arms of a benchmark, the model loaded once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunesid.core.delayed import Tensor
from prunesid.core.record import Kept
from prunesid.images.medium import Medium
from prunesid.images.records import ImageRecords
from prunesid.images.relevance import owners
from prunesid.methods.registry import requirements
from prunesid.study.files.features import Head, read_features
from prunesid.study.files.kept import kept_digest, load_kept, whole_digest
from prunesid.study.files.question_rows import asked_rows
from prunesid.study.files.questions import Questions, read_questions
from prunesid.study.provenance.code import code_of
from prunesid.study.provenance.store import Store
from prunesid.study.provenance.tables import read_keys, write_keys
from prunesid.study.stages.arm_answers import Job, Late, answer_arms, answer_material, missing
from prunesid.study.stages.device import model_of
from prunesid.study.stages.shard import WHOLE, Shard
from prunesid.study.stages.source import Runtime, Source

if TYPE_CHECKING:
    from prunesid.generate.decoding import Inputs
    from prunesid.study.config.arm import Arm

ALL = "all"
ATTENTION = "last_cls_attention"
NEWLINE = "newline"


def material_of(tokens: str, features: Head, runtime: Runtime, arm: Arm) -> dict[str, Any]:
    """The key of an arm's answers.

    tokens    what enters the language model: ALL or a `kept_digest`
    features  key of the features that the tokens are of
    """
    inside = late_of(arm)
    identity = features.identity(_fields([arm]))
    return answer_material(
        arm={"tokens": tokens, "features": identity}
        | ({} if inside is None else {"late": inside.material()})
        | ({"newline": arm.crops[NEWLINE]} if NEWLINE in arm.crops else {}),
        benchmark=identity["benchmark"], model=identity["model"], batch_size=runtime.batch_size,
        dtype=runtime.dtype, device=runtime.device, code=code_of("answer", [arm], runtime.model),
    )  # fmt: skip


def tokens_of(kept: Path | None, features: Head, questions: Questions | None) -> str:
    """The tokens that enter the language model: ALL or a `kept_digest`.

    kept       the tokens of an arm that selects
    questions  the shard's questions, for an arm that chooses by image and question
    """
    if kept is None:
        return ALL
    by_question, sizes = bool(asked_rows(kept)), features.sizes
    if by_question and questions is not None:
        sizes = [sizes[row] for row in questions.rows(features.inputs)[1]]
    found = kept_digest(kept)
    return ALL if found == whole_digest(sizes, by_question=by_question) else found


def late_of(arm: Arm) -> Late | None:
    """The method by which the arm drops tokens inside the language model."""
    return Late(arm.method, arm.budget, arm.params) if arm.is_late else None


def _reads_attention(arm: Arm) -> bool:
    return arm.is_late and requirements(arm.method, **arm.params).last_cls_attention


def _fields(arms: Sequence[Arm]) -> tuple[str, ...]:
    """The fields that are read beside the features."""
    return ("cls", ATTENTION) if any(map(_reads_attention, arms)) else ("cls",)


def _attention(records: ImageRecords, kept: Kept) -> Tensor:
    return records.gather(kept.index, ATTENTION)


def _with_gaps(
    inputs: Inputs, images: Sequence[str], owners: Mapping[str, str] | None = None
) -> Inputs:
    """`inputs`, with an entry without media for each of `images` that has none among them.

    So every image stays in the same batch, whatever the number of shards.

    owners  {input: its image}, where inputs are not images
    """
    of_image: dict[str, dict[str, Sequence[Medium]]] = {image: {} for image in images}
    for name, media in inputs.items():
        of_image[(owners or {}).get(name, name)][name] = media
    found: dict[str, Sequence[Medium]] = {}
    for image, own in of_image.items():
        found |= own or {image: ()}
    return found


def answer_benchmark(
    source: Source, runtime: Runtime, features: Path, selections: Path, arms: Sequence[Arm],
    store: Store, output: Path, shard: Shard = WHOLE, questions: Path | None = None,
) -> None:  # fmt: skip
    """Answer and store what is missing, then write {arm: key} as JSON; {} where there is no input.

    features, selections  files of the benchmark's shard
    questions             its questions, for arms that choose by image and question
    """
    reading = {arm.name for arm in arms if _reads_attention(arm)}
    records, head = read_features(features, layers=(), fields=_fields(arms))
    if not records.inputs:
        write_keys({}, output)
        return
    chosen = read_keys(selections)
    asked = None if questions is None else read_questions(questions)
    rows: Inputs | None = None
    sources: list[int] = []
    if asked is not None:
        rows, sources = asked.rows(records.inputs)

    def job(arm: Arm) -> Job:
        path = store.get(chosen[arm.name]) if arm.selects else None
        by_question = path is not None and bool(asked_rows(path))
        tokens = tokens_of(path, head, asked)

        def kept() -> Kept:
            if path is None or tokens == ALL:
                return records.all_tokens()
            return load_kept(path, records, sources if by_question else None)

        determined = material_of(tokens, head, runtime, arm)
        attention = partial(_attention, records) if arm.name in reading else None
        inputs = rows if by_question and tokens != ALL else None
        newline = arm.crops.get(NEWLINE)
        return Job(arm.name, determined, kept, late_of(arm), attention, inputs, newline)

    jobs = [job(arm) for arm in arms]
    keys = {each.name: Store.key(each.material) for each in jobs}
    # Arms that keep the same tokens share their answers.
    distinct = list({keys[each.name]: each for each in jobs}.values())
    if missing(distinct, store):
        every = shard.questions(source.open().questions(), runtime.batch_size)
        inputs: Inputs = records.inputs
        if head.skipped:
            images = list(dict.fromkeys(question.image_id for question in every))
            inputs = _with_gaps(inputs, images)
            of = {} if asked is None else owners(asked.prompts)
            distinct = [
                each if each.inputs is None
                else replace(each, inputs=_with_gaps(each.inputs, images, of))
                for each in distinct
            ]  # fmt: skip
        with model_of(runtime, source.task) as adapter:
            answer_arms(
                adapter, distinct, inputs, head.readable(every), store,
                batch_size=runtime.batch_size,
            )  # fmt: skip
    write_keys(keys, output)
