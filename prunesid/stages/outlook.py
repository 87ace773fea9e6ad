"""What a whole study takes of named hardware, from nothing: for planning, not for progress."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from prunesid.stages.features import needs_of
from prunesid.stages.progress import Size, Step, geometry_of, image_bytes, size_of, steps
from prunesid.study.config import Study
from prunesid.study.cost import Rates
from prunesid.study.hardware import GPUS, memory_bytes, rates, weight_bytes
from prunesid.study.published import published_task

ON_GPU = frozenset({"features", "answer"})


@dataclass(frozen=True)
class Outlook:
    """Bytes and seconds.

    gpu_memory   at the peak
    gpu_seconds  {GPU: time of the stages that use it}
    cpu_seconds  time of all other stages, of one process
    memory       of the machine: the features of the largest benchmark are read whole
    checkpoint   the model's weights
    data         what the data sets' files take, and once more what `datasets` makes of them
    features     what the vision tower leaves behind
    unknown      benchmarks whose size is not known before they are read
    """

    gpu_memory: float
    gpu_seconds: Mapping[str, float]
    cpu_seconds: float
    memory: float
    checkpoint: float
    data: float
    features: float
    unknown: tuple[str, ...]

    @property
    def disk(self) -> float:
        return self.checkpoint + self.data + self.features


def outlook(study: Study) -> Outlook:
    """The outlook of a study, as if nothing of it were done; computes nothing, loads no model."""
    # Of a folder that does not exist nothing is done.
    fresh = replace(study, results=study.results / "outlook")
    sizes = {b.name: size_of(study, b) for b in study.encoded}
    todo = list(steps(fresh, sizes))
    shape = geometry_of(study.model)
    layers = max(len(needs_of(study.arms_of(b.name)).layers) for b in study.benchmarks)
    features = {b.name: (sizes[b.name].images or 0) * image_bytes(study, b) for b in study.encoded}
    return Outlook(
        gpu_memory=memory_bytes(shape, study.dtype, study.batch_size, 1 + layers),
        gpu_seconds={
            gpu.name: _seconds(
                todo, Rates(rates=rates(shape, gpu, study.dtype, study.batch_size)), on_gpu=True
            )
            for gpu in GPUS
        },
        cpu_seconds=_seconds(
            todo, Rates(rates=rates(shape, GPUS[0], study.dtype, study.batch_size)), on_gpu=False
        ),
        memory=max(features.values()) + 4e9,
        checkpoint=weight_bytes(shape, study.dtype),
        data=sum(2 * (_download(b.task) or 0) for b in study.encoded),
        features=sum(features.values()),
        unknown=tuple(name for name, size in sizes.items() if _is_open(size)),
    )


def lines(seen: Outlook) -> list[str]:
    """The outlook for people."""
    times = ", ".join(f"{hours(s)} on one {name}" for name, s in seen.gpu_seconds.items())
    said = [
        f"GPU memory: {gigabytes(seen.gpu_memory)}. GPU time: {times}.",
        f"Beside it {hours(seen.cpu_seconds)} of one CPU process, shared among benchmarks, and "
        f"{gigabytes(seen.memory)} of memory.",
        f"Disk: {gigabytes(seen.disk)} (checkpoint {gigabytes(seen.checkpoint)}, data sets "
        f"{gigabytes(seen.data)}, features {gigabytes(seen.features)}).",
    ]
    if seen.unknown:
        said.append(f"Not counted, of unknown size: {', '.join(seen.unknown)}.")
    return said


def gigabytes(number: float) -> str:
    """Rounded to what an estimate is good for."""
    billions = number / 1e9
    return f"{billions:.1f} GB" if billions < 10 else f"{billions:,.0f} GB"


def hours(seconds: float) -> str:
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 36000 else f"{seconds / 3600:,.0f} h"


def _seconds(todo: list[Step], speed: Rates, *, on_gpu: bool) -> float:
    return sum(speed.seconds(step.left) for step in todo if (step.stage in ON_GPU) == on_gpu)


def _download(task: str) -> int | None:
    published = published_task(task)
    return None if published is None else published.download


def _is_open(size: Size) -> bool:
    return size.images is None or size.questions is None


def existing(path: Path) -> Path:
    """The nearest folder above `path` that is there, whose disk it will be on."""
    resolved = path.resolve()
    return next(p for p in (resolved, *resolved.parents) if p.exists())
