"""Arms that act in the vision encoder: a pass over the images for each of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from prunesid.core.delayed import torch
from prunesid.core.faults import blamed
from prunesid.core.memory import Halving
from prunesid.core.record import Kept
from prunesid.study.files.features import read_head
from prunesid.study.files.kept import save_kept
from prunesid.study.provenance.code import code_of
from prunesid.study.provenance.store import Store
from prunesid.study.provenance.tables import write_keys
from prunesid.study.stages.device import model_of
from prunesid.study.stages.source import Runtime, Source

if TYPE_CHECKING:
    from PIL.Image import Image

    from prunesid.families.base import Adapter
    from prunesid.images.media import Clip
    from prunesid.study.config.arm import Arm
    from prunesid.study.files.features import Head


def material_of(arm: Arm, features: Head, model: str) -> dict[str, Any]:
    """The key of an arm's tokens; `features` are the ordinary ones of the study's `model`."""
    return {
        "stage": "encode",
        "arm": {"method": arm.method, "budget": arm.budget, "params": dict(arm.params)},
        "features": features.identity(),
        "code": code_of("encode", [arm], model),
    }


def encode_arms(
    source: Source, runtime: Runtime, features: Path, arms: Sequence[Arm], store: Store,
    output: Path,
) -> None:  # fmt: skip
    """Encode and store what is missing, then write {arm: key} as JSON; {} where there is no input.

    features  file of `features.extract`, perhaps of a shard; its records give the rows

    ValueError where the model's family takes no method that acts in the encoder.
    """
    head = read_head(features)
    chosen = [arm for arm in arms if arm.encodes and head.inputs]
    determined = {arm: material_of(arm, head, runtime.model) for arm in chosen}
    keys = {arm: Store.key(material) for arm, material in determined.items()}
    todo = [arm for arm in determined if keys[arm] not in store]
    if todo:
        task, halving = source.open(), Halving("images to encode")
        first = {question.image_id: question for question in reversed(task.questions())}
        with model_of(runtime, source.task) as adapter:
            for arm in todo:
                begun = time.perf_counter()
                kept = _encode(
                    arm,
                    adapter,
                    list(head.inputs),
                    lambda name: task.media(first[name]),
                    runtime.batch_size,
                    halving,
                )
                cost = {"seconds": time.perf_counter() - begun, "images": len(head.inputs)}
                # Where all tokens of all crops are left, they are the ordinary features.
                copies = bool((kept.count >= torch.tensor(head.sizes)).all())
                write = partial(save_kept, kept, copies=copies)
                store.put(determined[arm], write, suffix=".safetensors", cost=cost)
    write_keys({arm.name: key for arm, key in keys.items()}, output)


def _encode(
    arm: Arm,
    adapter: Adapter,
    names: Sequence[str],
    media_of: Callable[[str], Sequence[Image | Clip]],
    batch_size: int,
    halving: Halving,
) -> Kept:
    """The tokens left of every input, in the order of `names`."""

    def encode(some: Sequence[str]) -> Kept:
        shown = {name: media_of(name) for name in some}
        owners = [name for name, media in shown.items() for _ in media]
        inputs = adapter.preprocess([medium for media in shown.values() for medium in media])
        return adapter.reduce(inputs, plans, owners)[0].to("cpu")

    parts: list[Kept] = []
    with blamed(lambda _: f"arm {arm.name!r}"):
        plans = adapter.plans(arm.method, arm.budget or 0, arm.params)
        for start in tqdm(range(0, len(names), batch_size), desc=arm.name, unit="batch"):
            parts += halving.run(names[start : start + batch_size], encode)
    return Kept.cat(parts)
