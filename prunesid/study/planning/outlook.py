"""Cost of a whole study on named hardware, from nothing: for planning, not for progress.

    python -m prunesid.study.planning.outlook configs/llava-1.5-7b.yaml

prints it; with --write it replaces the estimate in the study's own first comment (from "Estimated:"
to the end of the paragraph) and its row in docs/models.md. `make estimate` shows it beside what is
done.
"""

from __future__ import annotations

import argparse
import re
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from prunesid.study.config.published_models import published_task
from prunesid.study.config.study import ROOT, Study, load_study
from prunesid.study.planning.hardware import GPUS, memory_bytes, rates, weight_bytes
from prunesid.study.planning.progress import Step, image_bytes, largest_shape, size_of, steps
from prunesid.study.planning.rates import Rates
from prunesid.study.stages.needs import needs_of

ON_GPU = frozenset({"features", "questions", "encode", "answer"})
WIDTH = 112
# A paragraph of a comment.
ESTIMATE = re.compile(r"^# Estimated:.*(?:\n# .+)*", re.MULTILINE)
MODELS = ROOT / "docs" / "models.md"


@dataclass(frozen=True)
class Outlook:
    """Bytes and seconds.

    gpu_memory   at the peak
    gpu_seconds  {GPU: time of the stages that use it}
    cpu_seconds  time of all other stages, of one process
    memory       of the machine: the features of the largest benchmark's shard are read whole
    checkpoint   the model's weights
    data         what the data sets' files take, and once more what `datasets` makes of them
    features     of the vision tower, for all arms and for those in the encoder
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
    shape = largest_shape(study)
    layers = max(len(needs_of(study.arms_of(b.name)).layers) for b in study.benchmarks)
    published = [published_task(benchmark.task) for benchmark in study.encoded]
    speeds = {
        gpu.name: Rates(rates=rates(shape, gpu, study.dtype, study.batch_size)) for gpu in GPUS
    }
    features = {b.name: (sizes[b.name].images or 0) * image_bytes(study, b) for b in study.encoded}
    return Outlook(
        gpu_memory=memory_bytes(shape, study.dtype, study.batch_size, 1 + layers),
        gpu_seconds={name: _seconds(todo, speed, on_gpu=True) for name, speed in speeds.items()},
        cpu_seconds=_seconds(todo, speeds[GPUS[0].name], on_gpu=False),
        memory=max(features.values()) / study.shards + 4e9,
        checkpoint=weight_bytes(shape, study.dtype),
        data=sum(2 * (known.download or 0) for known in published if known is not None),
        features=sum(features.values())
        + sum(step.bytes for step in todo if step.stage == "encode"),
        unknown=tuple(name for name, size in sizes.items() if not size.is_known),
    )


def sentence(seen: Outlook) -> str:
    """The outlook for people."""
    times = ", ".join(f"{hours(s)} on one {name}" for name, s in seen.gpu_seconds.items())
    unknown = f" Not counted, of unknown size: {', '.join(seen.unknown)}." if seen.unknown else ""
    return (
        f"Estimated: {gigabytes(seen.gpu_memory)} of GPU memory; {times}; beside it "
        f"{hours(seen.cpu_seconds)} of CPU and {gigabytes(seen.memory)} of memory; "
        f"{gigabytes(seen.disk)} of disk (checkpoint {gigabytes(seen.checkpoint)}, data sets "
        f"{gigabytes(seen.data)}, features {gigabytes(seen.features)}).{unknown}"
    )


def row(name: str, study: Study, seen: Outlook) -> str:
    """The study's row in docs/models.md."""
    times = " / ".join(hours(seconds) for seconds in seen.gpu_seconds.values())
    cells = (
        f"[`{name}`](../configs/{name})", f"`{study.model}`", f"{len(study.arms)}",
        gigabytes(seen.gpu_memory), times, hours(seen.cpu_seconds), gigabytes(seen.memory),
        gigabytes(seen.disk),
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


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


def _seconds(todo: list[Step], speed: Rates, *, on_gpu: bool) -> float:
    return sum(speed.seconds(step.left) for step in todo if (step.stage in ON_GPU) == on_gpu)


def _write(path: Path, study: Study, seen: Outlook) -> None:
    new = commented(path.read_text(encoding="utf-8"), sentence(seen))
    path.write_text(new, encoding="utf-8")
    begin = f"| [`{path.name}`]"
    rows = MODELS.read_text(encoding="utf-8").splitlines()
    rows = [row(path.name, study, seen) if line.startswith(begin) else line for line in rows]
    MODELS.write_text("\n".join(rows) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description="What a whole study takes of named hardware.")
    parser.add_argument("study", type=Path, nargs="+", help="studies' YAML files")
    parser.add_argument("--write", action="store_true", help="refresh comments and docs/models.md")
    given = parser.parse_args()
    for path in given.study:
        study = load_study(path)
        seen = outlook(study)
        print(f"{path}: {sentence(seen)}")
        if given.write:
            _write(path, study, seen)


if __name__ == "__main__":
    main()
