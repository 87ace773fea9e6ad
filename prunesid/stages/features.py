"""The vision tower, once per image: what all arms of a benchmark read."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tqdm import tqdm

from prunesid import late, methods
from prunesid.accounting import Sizes
from prunesid.files import atomic
from prunesid.methods import Needs
from prunesid.models import Adapter, family_module, load
from prunesid.record import OPTIONAL, VisionRecord
from prunesid.records import Medium, Records, row_names
from prunesid.stages.device import device_slot
from prunesid.stages.material import (
    features_material,
    model_digest,
    model_path,
    questions_digest,
)
from prunesid.stages.shard import WHOLE, Shard
from prunesid.stages.source import Runtime, Source
from prunesid.study.arm import Arm

if TYPE_CHECKING:
    from prunesid.answering import Question
    from prunesid.evaluation.tasks import LmmsTask

_HIDDEN = "hidden."
_NEWLINE = "newline"


def needs_of(arms: Sequence[Arm]) -> Needs:
    """The union of what the arms' methods read.

    ValueError where an arm reads the question: features belong to an image, whatever is asked, and
    the supported models have no CLIP text tower.
    """
    reading = [arm for arm in arms if not (arm.is_vanilla or arm.encodes)]
    each = {
        a.name: (late.requirements if a.is_late else methods.requirements_in_crops)(
            a.method, **a.params
        )
        for a in reading
    }
    asking = [name for name, needs in each.items() if needs.relevance]
    if asking:
        raise ValueError(
            f"arms {', '.join(asking)} read the question's relevance to each patch, which the "
            f"stored features of an image do not hold; compress a record with `relevance` instead"
        )
    return reduce(or_, each.values(), Needs())


def extract(
    source: Source, runtime: Runtime, needs: Needs, output: Path, shard: Shard = WHOLE
) -> None:
    """Encode every visual input of a benchmark's shard once and write the records as safetensors.

    The metadata hold what `Head` has.
    """
    task = source.open()
    questions = shard.questions(task.questions(), runtime.batch_size)
    first = {q.image_id: q for q in reversed(questions)}
    names = list(dict.fromkeys(q.image_id for q in questions))
    path = model_path(runtime.model)
    with device_slot(runtime.device) as device:
        adapter = load(path, device, runtime.dtype, **dict(runtime.options))
        parts = list(_encoded(adapter, task, first, names, needs, runtime.batch_size))
    material = features_material(
        benchmark=questions_digest(questions, source.data), model=model_digest(runtime.model),
        family=family_module(path), batch_size=runtime.batch_size, dtype=runtime.dtype,
        device=runtime.device, options=runtime.options, frames=source.frames,
    )  # fmt: skip
    records = Records.cat(parts)
    head = {
        "inputs": {
            name: [{"kind": m.kind, "rows": m.rows, "layout": dict(m.layout)} for m in media]
            for name, media in records.inputs.items()
        },
        "members": records.members,
        "grids": [record.grid for record in records.groups],
        "share": records.share,
        "crops": dict(records.crops),
        "model_sizes": adapter.sizes.to_json(),
        "material": material,
    }
    with atomic(output) as temporary:
        save_file(
            {
                f"{number}.{key}": value.contiguous()
                for number, record in enumerate(records.groups)
                for key, value in _tensors(record).items()
            }
            | ({} if records.newline is None else {_NEWLINE: records.newline.contiguous()}),
            temporary,
            metadata={key: json.dumps(value) for key, value in head.items()},
        )


def _encoded(
    adapter: Adapter, task: LmmsTask, first: Mapping[str, Question], names: Sequence[str],
    needs: Needs, batch_size: int,
) -> Iterator[Records]:  # fmt: skip
    """The records of the inputs `names`, batch by batch, on the CPU; `first` question of each."""
    for start in tqdm(range(0, len(names), batch_size), desc="images", unit="batch"):
        shown = {name: task.media(first[name]) for name in names[start : start + batch_size]}
        blind = [first[name].id for name, media in shown.items() if not media]
        if blind:
            raise ValueError(
                f"questions {', '.join(blind[:5])} show nothing, so that there is nothing to prune"
            )
        owners = [name for name, media in shown.items() for _ in media]
        inputs = adapter.preprocess([medium for media in shown.values() for medium in media])
        yield adapter.encode(inputs, needs, owners).to("cpu")


def _tensors(record: VisionRecord) -> dict[str, torch.Tensor]:
    optional = {name: getattr(record, name) for name in OPTIONAL}
    hidden = {f"{_HIDDEN}{block}": value for block, value in record.hidden.items()}
    present = {key: value for key, value in optional.items() if value is not None}
    return {"features": record.features, **present, **hidden}


@dataclass(frozen=True)
class Head:
    """What a file of features says of itself, without its tensors.

    inputs, members, share, crops  as in `Records`
    grids        rows and columns of the patches of every group
    model_sizes  what a prompt's cost depends on
    material     what identifies the features
    """

    inputs: Mapping[str, tuple[Medium, ...]]
    members: tuple[tuple[int, ...], ...]
    grids: tuple[tuple[int, int], ...]
    share: int | None
    crops: Mapping[str, Any]
    model_sizes: Sizes
    material: Mapping[str, Any]

    @property
    def sizes(self) -> list[int]:
        """(R) patches of each crop."""
        return [rows * columns for rows, columns in self.row_grids]

    @property
    def row_grids(self) -> list[tuple[int, int]]:
        """(R) rows and columns of the patches of each crop."""
        found = {
            row: grid for grid, rows in zip(self.grids, self.members, strict=True) for row in rows
        }
        return [found[row] for row in range(len(found))]


def read_head(path: Path) -> Head:
    """The head of a file of `extract`; ValueError for one that an earlier version wrote."""
    with safe_open(path, "np") as file:
        found = {key: json.loads(value) for key, value in file.metadata().items()}
    if "crops" not in found:
        raise ValueError(f"{path} was written by an earlier version; the next run makes it anew")
    inputs = {
        name: tuple(Medium(m["kind"], tuple(m["rows"]), m["layout"]) for m in media)
        for name, media in found["inputs"].items()
    }
    members = tuple(tuple(rows) for rows in found["members"])
    grids = tuple((rows, columns) for rows, columns in found["grids"])
    sizes = Sizes.from_json(found["model_sizes"])
    return Head(
        inputs, members, grids, found["share"], found["crops"], sizes, found["material"]
    )  # fmt: skip


def read_features(
    path: Path, layers: Collection[int] | None = None, fields: Collection[str] | None = None
) -> tuple[Records, Mapping[str, Any]]:
    """The records of all inputs of a benchmark, on the CPU, and the material that identifies them.

    `layers` are the blocks to read into `hidden`, `fields` the optional fields to read
    (`record.OPTIONAL`), None for all that are stored.
    """
    head = read_head(path)
    names = row_names(head.inputs)
    groups = []
    with safe_open(path, "pt") as file:
        stored = sorted(file.keys())
        for number, (grid, rows) in enumerate(zip(head.grids, head.members, strict=True)):
            prefix = f"{number}."
            own = {n.removeprefix(prefix): n for n in stored if n.startswith(prefix)}
            read = {"features", *(OPTIONAL if fields is None else fields)}
            hidden = {
                int(key.removeprefix(_HIDDEN)): name
                for key, name in own.items() if key.startswith(_HIDDEN)
            }  # fmt: skip
            groups.append(VisionRecord(
                **{key: file.get_tensor(name) for key, name in own.items() if key in read},
                hidden={
                    block: file.get_tensor(name)
                    for block, name in hidden.items() if layers is None or block in layers
                },
                grid=grid,
                image_ids=tuple(names[row] for row in rows),
            ))  # fmt: skip
        newline = file.get_tensor(_NEWLINE) if _NEWLINE in stored else None
    found = Records(
        tuple(groups), head.members, head.inputs, head.share, head.crops, newline
    )  # fmt: skip
    return found, head.material
