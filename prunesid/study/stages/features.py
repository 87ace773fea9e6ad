"""The vision tower, once per image: what all arms of a benchmark read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from tqdm import tqdm

from prunesid.core.memory import Halving
from prunesid.images.records import ImageRecords
from prunesid.images.relevance import TEXT_TOWER
from prunesid.study.files.features import write_features, write_head
from prunesid.study.provenance.contents import features_material, questions_digest
from prunesid.study.stages.device import device_slot, model_of
from prunesid.study.stages.information import write_part
from prunesid.study.stages.needs import needs_text
from prunesid.study.stages.shard import WHOLE, Shard
from prunesid.study.stages.source import Runtime, Source

if TYPE_CHECKING:
    from prunesid.core.needs import Needs
    from prunesid.core.questions import Question
    from prunesid.families.base import Adapter
    from prunesid.lmms.tasks import LmmsTask


def extract(
    source: Source, runtime: Runtime, needs: Needs, output: Path, shard: Shard = WHOLE
) -> None:
    """Encode every visual input of a benchmark's shard once and write the records."""
    task = source.open()
    questions = shard.questions(task.questions(), runtime.batch_size)
    first = {q.image_id: q for q in reversed(questions)}
    names = list(dict.fromkeys(q.image_id for q in questions))
    material = features_material(questions_digest(questions, source.data), runtime, source.frames)
    asked = needs_text(needs, dict(runtime.options).get(TEXT_TOWER))
    with model_of(runtime, source.task) as adapter:
        parts = _encoded(adapter, task, first, names, needs, runtime.batch_size)
        write_features(parts, adapter.sizes, asked, material, output)


def encode_part(
    benchmark: str, source: Source, runtime: Runtime, needs: Needs, shard: Shard = WHOLE, *,
    features: Path | None = None, head: Path | None = None, information: Path | None = None,
) -> None:  # fmt: skip
    """`extract`, and what is read of the features when they may be gone: those that are named.

    Without `features`, these lie beside `head` while it is made.
    """
    folder = (features or head or Path()).parent
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".encoded-", dir=folder) as passing:
        path = features or Path(passing) / "features.safetensors"
        extract(source, runtime, needs, path, shard)
        if head is not None:
            write_head(path, head)
        if information is not None:
            with device_slot(runtime.device) as device:
                write_part(benchmark, path, information, device)


def _encoded(
    adapter: Adapter, task: LmmsTask, first: Mapping[str, Question], names: Sequence[str],
    needs: Needs, batch_size: int,
) -> Iterator[ImageRecords]:  # fmt: skip
    """The records of the inputs `names`, batch by batch, on the CPU; `first` question of each."""

    def encode(some: Sequence[str]) -> ImageRecords:
        shown = {name: task.media(first[name]) for name in some}
        blind = [first[name].id for name, media in shown.items() if not media]
        if blind:
            raise ValueError(
                f"questions {', '.join(blind[:5])} show nothing, so that there is nothing to prune"
            )
        owners = [name for name, media in shown.items() for _ in media]
        inputs = adapter.preprocess([medium for media in shown.values() for medium in media])
        return adapter.encode(inputs, needs, owners).to("cpu")

    halving = Halving("images to encode")
    for start in tqdm(range(0, len(names), batch_size), desc="images", unit="batch"):
        yield from halving.run(names[start : start + batch_size], encode)
