"""The questions, model and arms of a study that a stage works on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunesid.images.media import FRAMES

if TYPE_CHECKING:
    from prunesid.lmms.tasks import LmmsTask
    from prunesid.study.config.study import Benchmark, Study


@dataclass(frozen=True)
class Source:
    """The source of a benchmark's questions: an lmms-eval task, perhaps on a file of ours.

    With `images`, only the task's first questions count, up to that number of images. A clip has
    `frames` frames.
    """

    task: str
    data: Path | None = None
    images: int | None = None
    frames: int = FRAMES

    def open(self) -> LmmsTask:
        """The loaded task."""
        from prunesid.lmms.tasks import load_task

        task = replace(load_task(self.task, data=self.data), frames=self.frames)
        if self.images is None:
            return task
        seen: set[str] = set()
        for place, question in enumerate(task.questions()):
            seen.add(question.image_id)
            if len(seen) > self.images:
                return replace(task, limit=place)
        return task


@dataclass(frozen=True)
class Runtime:
    """How a model runs; part of what identifies every result.

    `options` are the model family's own, by name.
    """

    model: str
    dtype: str = "float32"
    device: str = "cpu"
    batch_size: int = 16
    options: tuple[tuple[str, Any], ...] = ()


def runtime_of(study: Study) -> Runtime:
    """The study's runtime; `auto` becomes a GPU where there is one."""
    device = study.device
    if device == "auto":
        device = "cuda" if _has_cuda() else "cpu"
    return Runtime(study.model, study.dtype, device, study.batch_size, study.model_options)


@cache
def _has_cuda() -> bool:
    if version("torch").endswith("+cpu"):
        return False  # without the import, which takes seconds
    import torch

    return torch.cuda.is_available()


def source_of(study: Study, benchmark: Benchmark, data: Path | None) -> Source:
    """The questions of one of the study's benchmarks; a file of ours is rendered to the limit."""
    images = None if data is not None else study.limit
    return Source(benchmark.task, data, images, study.frames)
