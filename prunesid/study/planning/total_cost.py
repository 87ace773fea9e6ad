"""Cost of a whole study on named hardware, from nothing: for planning, not for progress.

    python -m prunesid.study.planning.total_cost configs/llava-1.5-7b.yaml

prints it; with --write it replaces the estimate in the study's own first comment (from "Estimated:"
to the end of the paragraph) and its row in docs/models.md. `make estimate` shows it after what is
left to do.
"""

from __future__ import annotations

import argparse
import re
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from prunesid.study.clone import in_clone
from prunesid.study.config.hub_models import TaskSize, hub_tasks
from prunesid.study.config.study import Study, load_study
from prunesid.study.planning.hardware import GPUS, memory_bytes, rates, weight_bytes
from prunesid.study.planning.progress import image_bytes, largest_shape, size_of, steps
from prunesid.study.planning.rates import Rates
from prunesid.study.stages.needs import needs_of

ON_GPU = frozenset({"features", "questions", "encode", "select", "answer", "measure"})
WIDTH = 112
# A paragraph of a comment.
ESTIMATE = re.compile(r"^# Estimated:.*(?:\n# .+)*", re.MULTILINE)


@dataclass(frozen=True)
class TotalCost:
    """Bytes and seconds.

    gpu_memory   at the peak
    gpu_seconds  {GPU: time of the stages that use it}
    cpu_seconds  time of all other stages, of one process
    memory       of the machine: a base, and the tokens that an arm keeps of the largest benchmark's
                 shard, at most a quarter of its features, which are mapped
    checkpoint   the model's weights
    data         the data sets' files, and once more what `datasets` makes of them
    features     of the vision tower that lie on disk at once, and of arms in the encoder
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


def total_cost(study: Study) -> TotalCost:
    """The cost of a study, as if nothing of it were done; computes nothing, loads no model."""
    sizes = {b.name: size_of(study, b) for b in study.encoded}
    # In a folder that does not exist, nothing is done yet.
    todo = [step.left for step in steps(replace(study, results=study.results / "none"), sizes)]
    shape = largest_shape(study)
    layers = max(len(needs_of(study.arms_of(b.name)).layers) for b in study.benchmarks)
    published = [hub_tasks().get(b.task, TaskSize()) for b in study.encoded]
    speeds = {
        gpu.name: Rates(rates=rates(shape, gpu, study.dtype, study.batch_size)) for gpu in GPUS
    }

    def seconds(gpu: str, *, on_gpu: bool) -> float:
        return sum(speeds[gpu].seconds(w) for w in todo if (w.stage in ON_GPU) == on_gpu)

    features = {b.name: (sizes[b.name].images or 0) * image_bytes(study, b) for b in study.encoded}
    stored = sum(work.bytes for work in todo if work.stage in ("features", "encode"))
    return TotalCost(
        gpu_memory=memory_bytes(shape, study.dtype, study.batch_size, 1 + layers),
        gpu_seconds={gpu: seconds(gpu, on_gpu=True) for gpu in speeds},
        cpu_seconds=seconds(GPUS[0].name, on_gpu=False),
        memory=max(features.values()) / study.shards / 4 + 4e9,
        checkpoint=weight_bytes(shape, study.dtype),
        data=sum(2 * (size.download or 0) for size in published),
        features=stored,
        unknown=tuple(name for name, size in sizes.items() if not size.is_known),
    )


def sentence(cost: TotalCost) -> str:
    """The cost for people."""
    times = ", ".join(f"{hours(s)} on one {name}" for name, s in cost.gpu_seconds.items())
    unknown = f" Not counted, of unknown size: {', '.join(cost.unknown)}." if cost.unknown else ""
    return (
        f"Estimated: {gigabytes(cost.gpu_memory)} of GPU memory; {times}; beside it "
        f"{hours(cost.cpu_seconds)} of CPU and {gigabytes(cost.memory)} of memory; "
        f"{gigabytes(cost.disk)} of disk (checkpoint {gigabytes(cost.checkpoint)}, data sets "
        f"{gigabytes(cost.data)}, features {gigabytes(cost.features)}).{unknown}"
    )


def row(name: str, study: Study, cost: TotalCost) -> str:
    """The study's row in docs/models.md."""
    times = " / ".join(hours(seconds) for seconds in cost.gpu_seconds.values())
    memory, disk = map(gigabytes, (cost.memory, cost.disk))
    return (
        f"| [`{name}`](../configs/{name}) | `{study.model}` | {len(study.arms)} "
        f"| {gigabytes(cost.gpu_memory)} | {times} | {hours(cost.cpu_seconds)} "
        f"| {memory} | {disk} |"
    )


def commented(text: str, said: str) -> str:
    """A study's YAML with `said` where its first comment tells the estimate."""
    lines = [f"# {line}" for line in textwrap.wrap(said, WIDTH, break_on_hyphens=False)]
    return ESTIMATE.sub("\n".join(lines), text, count=1)


def gigabytes(number: float) -> str:
    """Rounded to what an estimate is good for."""
    billions = number / 1e9
    return f"{billions:.1f} GB" if billions < 10 else f"{billions:,.0f} GB"


def hours(seconds: float) -> str:
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 36000 else f"{seconds / 3600:,.0f} h"


def _write(path: Path, study: Study, cost: TotalCost) -> None:
    new = commented(path.read_text(encoding="utf-8"), sentence(cost))
    path.write_text(new, encoding="utf-8")
    own = re.compile(rf"^\| \[`{re.escape(path.name)}`\].*$", re.MULTILINE)
    page = in_clone("docs", "models.md")
    table = page.read_text(encoding="utf-8")
    page.write_text(own.sub(row(path.name, study, cost), table), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description="What a whole study takes of named hardware.")
    parser.add_argument("study", type=Path, nargs="+", help="studies' YAML files")
    parser.add_argument("--write", action="store_true", help="refresh comments and docs/models.md")
    given = parser.parse_args()
    for path in given.study:
        study = load_study(path)
        cost = total_cost(study)
        print(f"{path}: {sentence(cost)}")
        if given.write:
            _write(path, study, cost)


if __name__ == "__main__":
    main()
