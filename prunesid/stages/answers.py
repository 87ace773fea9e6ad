"""The answers of all arms of a benchmark, the model loaded once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from prunesid.answering.arms import Job, Late, answer_arms, answer_material, missing
from prunesid.answering.decoding import Inputs
from prunesid.answering.store import Store
from prunesid.late import requirements
from prunesid.models import family_module, load
from prunesid.record import Kept
from prunesid.records import Records
from prunesid.stages.device import device_slot
from prunesid.stages.features import read_features
from prunesid.stages.material import model_path
from prunesid.stages.questions import read_questions
from prunesid.stages.selection import kept_digest, load_kept, read_keys, whole_digest, write_keys
from prunesid.stages.shard import WHOLE, Shard
from prunesid.stages.source import Runtime, Source
from prunesid.study.arm import Arm

ALL = "all"
ATTENTION = "last_cls_attention"


def material_of(
    tokens: str, features: Mapping[str, Any], runtime: Runtime, arm: Arm
) -> dict[str, Any]:
    """What determines an arm's answers.

    tokens    what enters the language model: ALL or a `kept_digest`
    features  material of the features that these are of
    """
    inside = late_of(arm)
    return answer_material(
        arm={"tokens": tokens, "features": dict(features)}
        # The questions and their order are part of what identifies the features.
        | ({"asked": True} if arm.asked and tokens != ALL else {})
        | ({} if inside is None else {"late": inside.material()}),
        benchmark=features["benchmark"], model=features["model"],
        family=family_module(model_path(runtime.model)), batch_size=runtime.batch_size,
        dtype=runtime.dtype, device=runtime.device,
    )  # fmt: skip


def late_of(arm: Arm) -> Late | None:
    """What the arm drops inside the language model."""
    return Late(arm.method, arm.budget, arm.params) if arm.is_late else None


def _reads_attention(arm: Arm) -> bool:
    return arm.is_late and requirements(arm.method, **arm.params).last_cls_attention


def _attention(records: Records, kept: Kept) -> Tensor:
    return records.gather(kept.index, ATTENTION)


def answer_benchmark(
    source: Source, runtime: Runtime, features: Path, selections: Path, arms: Sequence[Arm],
    store: Store, output: Path, shard: Shard = WHOLE, questions: Path | None = None,
) -> None:  # fmt: skip
    """Answer and store what is missing, then write {arm: key} as JSON; {} where there is no input.

    features, selections  those of the benchmark's shard
    questions             of the shard, for arms that choose by image and question
    """
    reading = {arm.name for arm in arms if _reads_attention(arm)}
    fields = ("cls", ATTENTION) if reading else ("cls",)
    records, material = read_features(features, layers=(), fields=fields)
    if not records.inputs:
        write_keys({}, output)
        return
    chosen = read_keys(selections)
    sizes = records.sizes
    asked: Inputs | None = None
    sources: list[int] = []
    if questions is not None:
        asked, sources = read_questions(questions).rows(records.inputs)

    def tokens_of(arm: Arm) -> str:
        if not arm.selects:
            return ALL
        found = kept_digest(store.get(chosen[arm.name]))
        own = [sizes[row] for row in sources] if arm.asked else sizes
        return ALL if found == whole_digest(own) else found

    def job(arm: Arm) -> Job:
        tokens = tokens_of(arm)

        def kept() -> Kept:
            if tokens == ALL:
                return records.all_tokens()
            return load_kept(store.get(chosen[arm.name]), records, sources if arm.asked else None)

        determined = material_of(tokens, material, runtime, arm)
        attention = partial(_attention, records) if arm.name in reading else None
        inputs = asked if arm.asked and tokens != ALL else None
        return Job(arm.name, determined, kept, late_of(arm), attention, inputs)

    jobs = [job(arm) for arm in arms]
    keys = {each.name: Store.key(each.material) for each in jobs}
    # Arms that keep the same tokens share their answers.
    distinct = list({keys[each.name]: each for each in jobs}.values())
    if missing(distinct, store):
        every = shard.questions(source.open().questions(), runtime.batch_size)
        with device_slot(runtime.device) as device:
            path = model_path(runtime.model)
            adapter = load(path, device, runtime.dtype, **dict(runtime.options))
            answer_arms(
                adapter, distinct, records.inputs, every, store, batch_size=runtime.batch_size
            )
    write_keys(keys, output)
