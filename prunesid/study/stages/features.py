"""The vision tower, once per image: what all arms of a benchmark read."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from tqdm import tqdm

from prunesid.core.files import temporary_prefix
from prunesid.core.memory import Halving
from prunesid.images.media import Unreadable
from prunesid.images.records import ImageRecords
from prunesid.images.relevance import TEXT_TOWER
from prunesid.study.files.features import Skipped, write_features, write_head
from prunesid.study.provenance.contents import features_material, questions_digest
from prunesid.study.stages.device import device_slot, model_of
from prunesid.study.stages.information import write_part
from prunesid.study.stages.needs import needs_text
from prunesid.study.stages.shard import WHOLE, Shard
from prunesid.study.stages.source import Runtime, Source

if TYPE_CHECKING:
    from prunesid.core.needs import Needs
    from prunesid.families.base import Adapter
    from prunesid.families.inputs.images_and_clips import Media

log = logging.getLogger(__name__)


def extract(
    source: Source, runtime: Runtime, needs: Needs, output: Path, shard: Shard = WHOLE, *,
    skip_unreadable: bool = False,
) -> None:  # fmt: skip
    """Encode every visual input of a benchmark's shard once and write the records.

    skip_unreadable  leave out what cannot be read; the file's head says what that is

    ValueError, naming a question and its file or row, on what cannot be read otherwise, and for a
    question that shows nothing.
    """
    task = source.open()
    questions = shard.questions(task.questions(), runtime.batch_size)
    first = {q.image_id: q for q in reversed(questions)}
    names = list(dict.fromkeys(q.image_id for q in questions))
    material = features_material(questions_digest(questions, source.data), runtime, source.frames)
    asked = needs_text(needs, dict(runtime.options).get(TEXT_TOWER))
    counts, skipped = Counter(q.image_id for q in questions), dict[str, Skipped]()

    def media(name: str) -> Media | None:
        try:
            found = task.media(first[name])
        except Unreadable as error:
            if not skip_unreadable:
                raise ValueError(
                    f"{error}. Mend it, or leave its {counts[name]} questions out for all arms by "
                    "`skip_unreadable: true` in the study"
                ) from error
            if name not in skipped:
                log.warning("left out with %d questions: %s", counts[name], error)
            skipped[name] = Skipped(counts[name], str(error))
            return None
        if not found:
            raise ValueError(
                f"question {first[name].id} shows nothing, so that there is nothing to prune"
            )
        return found

    with model_of(runtime, source.task) as adapter:
        parts = _encoded(adapter, media, names, needs, runtime.batch_size)
        write_features(parts, adapter.sizes, asked, material, output, skipped)


def encode_part(
    benchmark: str, source: Source, runtime: Runtime, needs: Needs, shard: Shard = WHOLE, *,
    features: Path | None = None, head: Path | None = None, information: Path | None = None,
    skip_unreadable: bool = False,
) -> None:  # fmt: skip
    """Run `extract` and write the files that are named: features, their head, their information.

    Without `features`, the features lie beside `head` only while the other files are made.
    """
    folder = (features or head or Path()).parent
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=temporary_prefix(), dir=folder) as passing:
        path = features or Path(passing) / "features.safetensors"
        extract(source, runtime, needs, path, shard, skip_unreadable=skip_unreadable)
        if head is not None:
            write_head(path, head)
        if information is not None:
            with device_slot(runtime.device) as device:
                write_part(benchmark, path, information, device)


def _encoded(
    adapter: Adapter, media_of: Callable[[str], Media | None], names: Sequence[str], needs: Needs,
    batch_size: int,
) -> Iterator[ImageRecords]:  # fmt: skip
    """The records of the inputs `names`, batch by batch, on the CPU, as far as they have media."""

    def encode(some: Sequence[str]) -> ImageRecords | None:
        read = {name: media_of(name) for name in some}
        shown = {name: media for name, media in read.items() if media is not None}
        if not shown:
            return None
        owners = [name for name, media in shown.items() for _ in media]
        inputs = adapter.preprocess([medium for media in shown.values() for medium in media])
        return adapter.encode(inputs, needs, owners).to("cpu")

    halving = Halving("images to encode")
    for start in tqdm(range(0, len(names), batch_size), desc="images", unit="batch"):
        for part in halving.run(names[start : start + batch_size], encode):
            if part is not None:
                yield part
