"""The vision tower, once per image: what all arms of a benchmark read."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tqdm import tqdm

from prunesid.accounting import Sizes
from prunesid.files import atomic
from prunesid.methods import Needs, requirements
from prunesid.models import family_module, load
from prunesid.record import OPTIONAL, VisionRecord
from prunesid.stages.material import (
    features_material,
    model_digest,
    model_path,
    questions_digest,
)
from prunesid.stages.source import Runtime, Source
from prunesid.study.arm import Arm


def needs_of(arms: Sequence[Arm]) -> Needs:
    """The union of what the arms' methods read.

    ValueError where an arm reads the question: features belong to an image, whatever is asked, and
    the supported models have no CLIP text tower.
    """
    each = {a.name: requirements(a.method, **a.params) for a in arms if a.selects}
    asking = [name for name, needs in each.items() if needs.relevance]
    if asking:
        raise ValueError(
            f"arms {', '.join(asking)} read the question's relevance to each patch, which the "
            f"stored features of an image do not hold; compress a record with `relevance` instead"
        )
    return Needs(
        layers=frozenset().union(*(needs.layers for needs in each.values())),
        **{name: any(getattr(needs, name) for needs in each.values()) for name in OPTIONAL},
    )


def extract(source: Source, runtime: Runtime, needs: Needs, output: Path) -> None:
    """Encode every image of a benchmark once and write the record as safetensors.

    The metadata hold the image ids (rows), the grid, the model's sizes, and the material that
    identifies the features.
    """
    task = source.open()
    questions = task.questions()
    first = {q.image_id: q for q in reversed(questions)}
    names = list(dict.fromkeys(q.image_id for q in questions))
    path = model_path(runtime.model)
    adapter = load(path, runtime.device, runtime.dtype)
    parts: dict[str, list[torch.Tensor]] = {}
    for start in tqdm(range(0, len(names), runtime.batch_size), desc="images", unit="batch"):
        chosen = names[start : start + runtime.batch_size]
        pixels = adapter.preprocess([task.image(first[name]) for name in chosen])
        record = adapter.encode(pixels, **needs.encoding())
        for key, value in _tensors(record).items():
            parts.setdefault(key, []).append(value.cpu())
    material = features_material(
        benchmark=questions_digest(questions, source.data), model=model_digest(runtime.model),
        family=family_module(path), batch_size=runtime.batch_size, dtype=runtime.dtype,
        device=runtime.device,
    )  # fmt: skip
    metadata = {
        "image_ids": names,
        "grid": adapter.grid,
        "sizes": adapter.sizes.to_json(),
        "material": material,
    }
    with atomic(output) as temporary:
        save_file(
            {key: torch.cat(value).contiguous() for key, value in parts.items()},
            temporary,
            metadata={key: json.dumps(value) for key, value in metadata.items()},
        )


def read_sizes(path: Path) -> tuple[Sizes, int]:
    """Of a file of `extract`: the sizes of its model, and the patch tokens of an image."""
    with safe_open(path, "np") as file:
        sizes = Sizes.from_json(json.loads(file.metadata()["sizes"]))
        return sizes, file.get_slice("features").get_shape()[1]


def _tensors(record: VisionRecord) -> dict[str, torch.Tensor]:
    optional = {name: getattr(record, name) for name in OPTIONAL}
    hidden = {f"hidden.{block}": value for block, value in record.hidden.items()}
    present = {key: value for key, value in optional.items() if value is not None}
    return {"features": record.features, **present, **hidden}


def read_features(
    path: Path, layers: Collection[int] | None = None, fields: Collection[str] | None = None
) -> tuple[VisionRecord, dict[str, Any]]:
    """The record of all images of a benchmark, on the CPU, and the material that identifies it.

    `layers` are the blocks to read into `hidden`, `fields` the optional fields to read
    (`record.OPTIONAL`), None for all that are stored.
    """
    prefix = "hidden."
    with safe_open(path, "pt") as file:
        metadata = {key: json.loads(value) for key, value in file.metadata().items()}
        names = sorted(file.keys())
        stored = {int(n.removeprefix(prefix)): n for n in names if n.startswith(prefix)}
        read = {"features", *(OPTIONAL if fields is None else fields)}
        tensors = {name: file.get_tensor(name) for name in names if name in read}
        hidden = {
            block: file.get_tensor(name)
            for block, name in stored.items() if layers is None or block in layers
        }  # fmt: skip
    record = VisionRecord(
        **tensors, hidden=hidden, grid=tuple(metadata["grid"]),
        image_ids=tuple(metadata["image_ids"]),
    )  # fmt: skip
    return record, metadata["material"]
