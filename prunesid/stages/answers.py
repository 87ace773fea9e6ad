"""The answers of all arms of a benchmark, the model loaded once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from prunesid.answering.arms import Job, answer_arms, answer_material, missing
from prunesid.answering.engine import all_tokens
from prunesid.answering.store import Store
from prunesid.models import family_module, load
from prunesid.record import Kept
from prunesid.stages.features import read_features
from prunesid.stages.material import model_path
from prunesid.stages.selection import kept_digest, load_kept, read_keys, write_keys
from prunesid.stages.source import Runtime, Source
from prunesid.study.arm import Arm


def answer_benchmark(
    source: Source, runtime: Runtime, features: Path, selections: Path, arms: Sequence[Arm],
    store: Store, output: Path,
) -> None:  # fmt: skip
    """Answer and store what is missing, then write {arm: key} as JSON."""
    record, material = read_features(features)
    chosen = read_keys(selections)
    path = model_path(runtime.model)

    def job(arm: Arm) -> Job:
        def kept() -> Kept:
            if arm.is_vanilla:
                return all_tokens(record)
            return load_kept(store.get(chosen[arm.name]), record.features)

        tokens = "all" if arm.is_vanilla else kept_digest(store.get(chosen[arm.name]))
        determined = answer_material(
            arm={"tokens": tokens, "features": material},
            benchmark=material["benchmark"], model=material["model"], family=family_module(path),
            batch_size=runtime.batch_size, dtype=runtime.dtype, device=runtime.device,
        )  # fmt: skip
        return Job(arm.name, determined, kept)

    jobs = [job(arm) for arm in arms]
    keys = {each.name: Store.key(each.material) for each in jobs}
    # Arms that keep the same tokens share their answers.
    distinct = list({keys[each.name]: each for each in jobs}.values())
    if missing(distinct, store):
        task = source.open()
        adapter = load(path, runtime.device, runtime.dtype)
        answer_arms(
            adapter, distinct, record.image_ids or (), task.questions(), store,
            batch_size=runtime.batch_size,
        )  # fmt: skip
    write_keys(keys, output)
