"""The file in which the features of a benchmark's images lie, for every stage that reads them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from safetensors import safe_open

from prunesid.core.costs import Sizes
from prunesid.core.delayed import torch
from prunesid.core.files import atomic, digest, temporary_prefix
from prunesid.core.questions import Question
from prunesid.core.record import OPTIONAL, VisionRecord
from prunesid.images.medium import Medium, row_names
from prunesid.images.records import ImageRecords

_HIDDEN = "hidden."
# Read with the features by every stage.
_CARRIED = "carried"
# The newline embedding, of which there is one for all groups.
_NEWLINE = "newline"
_NEWLINE_TENSOR = f"all.{_NEWLINE}"


def hidden_fields(layers: Iterable[int]) -> list[str]:
    """The fields that hold these layers."""
    return [f"{_HIDDEN}{layer}" for layer in sorted(layers)]


def layers_of(names: Iterable[str]) -> list[int]:
    """The layers that these fields hold; fields that hold none are skipped."""
    return [int(n.removeprefix(_HIDDEN)) for n in names if n.startswith(_HIDDEN)]


@dataclass(frozen=True)
class Skipped:
    """An input that cannot be read: the questions that are on it, and why."""

    questions: int
    reason: str


NO_SKIPPED: Mapping[str, Skipped] = {}


def write_features(
    parts: Iterable[ImageRecords], sizes: Sizes, needs: str, material: Mapping[str, Any],
    output: Path, skipped: Mapping[str, Skipped] = NO_SKIPPED,
) -> None:  # fmt: skip
    """Write the records of all parts as safetensors; the metadata hold what `Head` has.

    skipped  is read only after the last part was made

    No more than one part is in memory at once: the tensors grow in files beside the output.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=temporary_prefix(), dir=output.parent) as folder:
        _write(_joined(parts, Path(folder)), sizes, needs, material, output, skipped)


def _joined(parts: Iterable[ImageRecords], folder: Path) -> ImageRecords:
    """As `ImageRecords.cat`, with the tensors in files of `folder`, mapped into memory."""
    grown: dict[tuple[object, str], tuple[Path, torch.dtype]] = {}
    shapes = []
    for part in parts:
        for record in part.groups:
            for name, value in _tensors(record).items():
                key = _grid_of(record), name
                path, _ = grown.setdefault(key, (folder / str(len(grown)), value.dtype))
                with path.open("ab") as file:
                    file.write(value.contiguous().view(torch.uint8).numpy().data)
        # Tensors without values: joining them is to give the shapes alone.
        groups = tuple(record.to("meta") for record in part.groups)
        shapes.append(replace(part, groups=groups))
    found = ImageRecords.cat(shapes)

    def mapped(record: VisionRecord) -> VisionRecord:
        own = {}
        for name, value in _tensors(record).items():
            path, dtype = grown[_grid_of(record), name]
            flat = torch.from_file(str(path), shared=False, size=value.numel(), dtype=dtype)
            own[name] = flat.view(value.shape)
        return _record(own, record.grid, record.image_ids)

    return replace(found, groups=tuple(map(mapped, found.groups)))


def _grid_of(record: VisionRecord) -> object:
    """The grid, or the number of tokens, that records must share to be joined."""
    return record.grid or record.num_tokens


def _write(
    records: ImageRecords, sizes: Sizes, needs: str, material: Mapping[str, Any], output: Path,
    skipped: Mapping[str, Skipped],
) -> None:  # fmt: skip
    layout = {
        "inputs": {
            name: [{"kind": m.kind, "rows": m.rows, "layout": dict(m.layout)} for m in media]
            for name, media in records.inputs.items()
        },
        "members": records.members,
        "grids": [record.grid for record in records.groups],
        "share": records.share,
        "crops": dict(records.crops),
    }
    tensors = {
        f"{number}.{key}": value.contiguous()
        for number, record in enumerate(records.groups)
        for key, value in _tensors(record).items()
    }
    if records.newline is not None:
        tensors[_NEWLINE_TENSOR] = records.newline.contiguous()
    head = layout | {
        "model_sizes": sizes.to_json(),
        "needs": needs,
        "material": dict(material),
        "contents": {"layout": digest(layout)} | _contents(tensors),
    }
    if skipped:
        head["skipped"] = {name: asdict(each) for name, each in skipped.items()}
    with atomic(output) as temporary:
        # Whoever reads a head alone needs no torch.
        from safetensors.torch import save_file

        save_file(
            tensors, temporary, metadata={key: json.dumps(value) for key, value in head.items()}
        )


def _contents(tensors: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """{field: digest of it over all groups}."""
    found: dict[str, dict[str, list[object]]] = {}
    for name, value in tensors.items():
        group, _, field = name.partition(".")
        content = hashlib.sha256(value.view(torch.uint8).numpy().data).hexdigest()
        found.setdefault(field, {})[group] = [str(value.dtype), list(value.shape), content]
    return {field: digest(parts) for field, parts in found.items()}


def _tensors(record: VisionRecord) -> dict[str, torch.Tensor]:
    optional = {name: getattr(record, name) for name in OPTIONAL}
    hidden = {f"{_HIDDEN}{block}": value for block, value in record.hidden.items()}
    always = {"features": record.features, _CARRIED: record.carried}
    present = {key: value for key, value in (always | optional).items() if value is not None}
    return present | hidden


def _record(
    tensors: Mapping[str, torch.Tensor], grid: Any, image_ids: tuple[str, ...] | None
) -> VisionRecord:
    """The record of `_tensors`."""
    hidden = {
        int(name.removeprefix(_HIDDEN)): value
        for name, value in tensors.items()
        if name.startswith(_HIDDEN)
    }
    plain: dict[str, Any] = {
        name: value for name, value in tensors.items() if not name.startswith(_HIDDEN)
    }
    return VisionRecord(**plain, hidden=hidden, grid=grid, image_ids=image_ids)


@dataclass(frozen=True)
class Head:
    """What a file of features holds, without its tensors.

    inputs, members, share, crops  as in `ImageRecords`
    grids        rows and columns of the patches of every group
    model_sizes  what a prompt's cost depends on
    needs        what the tower was asked to keep, as text
    material     what the features were made from
    contents     digests of every field, and of `layout`, which stands for the first five
    skipped      the inputs that are left out since they cannot be read
    """

    inputs: Mapping[str, tuple[Medium, ...]]
    members: tuple[tuple[int, ...], ...]
    grids: tuple[tuple[int, int], ...]
    share: int | None
    crops: Mapping[str, Any]
    model_sizes: Sizes
    needs: str
    material: Mapping[str, Any]
    contents: Mapping[str, str]
    skipped: Mapping[str, Skipped] = field(default_factory=dict)

    def identity(self, fields: Iterable[str] = ()) -> dict[str, Any]:
        """The identity of the features for a stage that reads `fields` of them.

        It depends on what they contain, not on the code that made them. Fields that are not stored
        add nothing.
        """
        read = {"layout", "features", _CARRIED, _NEWLINE, *fields}
        named = {name: value for name, value in self.material.items() if name != "code"}
        return named | {"contents": {n: v for n, v in self.contents.items() if n in read}}

    def readable(self, questions: Iterable[Question]) -> list[Question]:
        """The questions without those on what is `skipped`."""
        return [question for question in questions if question.image_id not in self.skipped]

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


def write_head(features: Path, output: Path) -> None:
    """Write the head of a file of features to a file of its own, for stages that need only that."""
    with atomic(output) as temporary:
        temporary.write_text(json.dumps(_fields_of(features)), encoding="utf-8")


def _fields_of(features: Path) -> dict[str, Any]:
    with safe_open(features, "np") as file:
        return {key: json.loads(value) for key, value in file.metadata().items()}


def read_head(path: Path) -> Head:
    """The head of a file of features, or from one of `write_head`.

    ValueError for one that an earlier version wrote.
    """
    if path.suffix == ".json":
        found = json.loads(path.read_text(encoding="utf-8"))
    else:
        found = _fields_of(path)
    if not {"contents", "crops"} <= found.keys():
        raise ValueError(f"{path} was written by an earlier version; the next run makes it anew")
    inputs = {
        name: tuple(Medium(m["kind"], tuple(m["rows"]), m["layout"]) for m in media)
        for name, media in found["inputs"].items()
    }
    members = tuple(tuple(rows) for rows in found["members"])
    grids = tuple((rows, columns) for rows, columns in found["grids"])
    sizes = Sizes.from_json(found["model_sizes"])
    return Head(
        inputs, members, grids, found["share"], found["crops"], sizes, found["needs"],
        found["material"], found["contents"],
        {name: Skipped(**each) for name, each in found.get("skipped", {}).items()},
    )  # fmt: skip


def skipped_of(heads: Iterable[Path]) -> dict[str, Skipped]:
    """What is left out of a benchmark, from the heads of its shards."""
    return {name: each for path in heads for name, each in read_head(path).skipped.items()}


def read_features(
    path: Path, layers: Collection[int] | None = None, fields: Collection[str] | None = None
) -> tuple[ImageRecords, Head]:
    """The records of all inputs of a benchmark, on the CPU, and the file's header.

    The tensors are mapped from the file into memory: parts that are not used are not read, and the
    system can drop used parts again.

    layers  the blocks to read into `hidden`; None: all that are stored
    fields  the optional fields to read (`record.OPTIONAL`); None: all that are stored
    """
    head = read_head(path)
    names = row_names(head.inputs)
    groups = []
    with safe_open(path, "pt") as file:
        stored = sorted(file.keys())
        for number, (grid, rows) in enumerate(zip(head.grids, head.members, strict=True)):
            prefix = f"{number}."
            own = {n.removeprefix(prefix): n for n in stored if n.startswith(prefix)}
            read = {"features", _CARRIED, *(OPTIONAL if fields is None else fields)}
            if layers is None:
                read |= {key for key in own if key.startswith(_HIDDEN)}
            else:
                read |= set(hidden_fields(layers))
            tensors = {key: file.get_tensor(name) for key, name in own.items() if key in read}
            groups.append(_record(tensors, grid, tuple(names[row] for row in rows)))
        newline = file.get_tensor(_NEWLINE_TENSOR) if _NEWLINE_TENSOR in stored else None
    found = ImageRecords(tuple(groups), head.members, head.inputs, head.share, head.crops, newline)
    return found, head
