"""Progress of a study, and the cost of what is left.

    prunesid estimate configs/study.yaml --cores 2

`make estimate` and `snakemake estimate` say the same. Times come from the part of the study that
this machine has finished. Before there is one, they come from rates shipped with the package or, on
a GPU, from its speed and the model's size. Models and data sets in configs/hub/ need no
download.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from prunesid.pocket import EMBEDDED
from prunesid.study.config.hub_models import TaskSize
from prunesid.study.config.study import Study
from prunesid.study.layout import Layout
from prunesid.study.planning.checks.machine import Machine, mount_of
from prunesid.study.planning.hardware import Gpu, gpu_named, passes, rates
from prunesid.study.planning.progress import (
    Step,
    clocked_requests,
    head_of,
    largest_shape,
    size_of,
    steps,
)
from prunesid.study.planning.rates import SHIPPED, STAGES, Rates, Work, measured, wall_seconds
from prunesid.study.planning.total_cost import ON_GPU, sentence, total_cost
from prunesid.study.provenance.contents import model_digest
from prunesid.study.provenance.store import Store
from prunesid.study.stages.shard import shards
from prunesid.study.stages.source import runtime_of

DONE = "Nothing is left to do."


@dataclass(frozen=True)
class Estimate:
    """Work that is left in a study, and how fast it goes."""

    study: Study
    sizes: dict[str, TaskSize]
    steps: list[Step]
    rates: Rates

    @property
    def seconds(self) -> float:
        """Work that is left, in seconds of one process."""
        return sum(self.rates.seconds(step.left) for step in self.steps)

    @property
    def bytes(self) -> float:
        """Disk space that the work will take."""
        return sum(step.left.bytes for step in self.steps)

    def wall_seconds(self, cores: int) -> float:
        """Seconds on so many cores: benchmarks, then ablations, run side by side."""
        parts: tuple[defaultdict[str, float], ...] = (defaultdict(float), defaultdict(float))
        for step in self.steps:
            parts[step.stage in ("compare", "measure")][step.name] += self.rates.seconds(step.left)
        return sum(wall_seconds(chains.values(), cores) for chains in parts)


def estimate(study: Study) -> Estimate:
    """The estimate of a study; computes nothing, loads no model."""
    sizes = {b.name: size_of(study, b) for b in study.encoded}
    shipped = SHIPPED
    if uses_gpu(study):
        shipped = rates(largest_shape(study), gpu_here(), study.dtype, study.batch_size)
    done = measured(finished(study, sizes), shipped)
    return Estimate(study, sizes, steps(study, sizes), done)


def uses_gpu(study: Study) -> bool:
    """True for a study of a real model on a GPU; the shipped rates are Pocket-LLaVA's."""
    return study.model not in EMBEDDED and runtime_of(study).device.startswith("cuda")


def gpu_here() -> Gpu:
    """This machine's first GPU, or the slowest that is known where there is none."""
    import torch

    return gpu_named(torch.cuda.get_device_name(0) if torch.cuda.is_available() else "")


def finished(study: Study, sizes: dict[str, TaskSize]) -> Iterator[tuple[Work, float]]:
    """Work that this study's model has done here, and the seconds that each part took."""
    layout, runtime = Layout.of(study), runtime_of(study)
    if not layout.model.is_dir():  # before its first stage a model on the hub need not be here
        return
    encoded: dict[str, TaskSize] = {}
    for benchmark in study.encoded:
        name, size = benchmark.name, sizes[benchmark.name]
        for shard in shards(study.shards):
            head = head_of(layout.head(name, shard))
            if head is not None:
                encoded[head.material["benchmark"]] = size
            path = layout.time("features", name, str(shard))
            images = len(shard.take(range(size.images or 0), study.batch_size))
            if path.is_file() and images:
                yield from clocked(path, Work("features", {"images": images, "jobs": 1}))
    for ablation in study.ablations:
        path = layout.time("measure", layout.ablations.name, ablation.name)
        if ablation.latency is not None and path.is_file():
            asked = {"requests": clocked_requests(ablation), "jobs": 1}
            yield from clocked(path, Work("measure", asked))
    own = {name: getattr(runtime, name) for name in ("batch_size", "dtype", "device")}
    own["model"] = model_digest(study.model)
    for entry in Store(layout.store).entries():
        stage, cost = entry.material.get("stage"), entry.cost
        if "seconds" not in cost or stage not in STAGES:
            continue
        amount = {name: value for name, value in cost.items() if name != "seconds"}
        ran = entry.material.get("features", entry.material)
        if stage != "score" and any(ran.get(name) != value for name, value in own.items()):
            continue
        if stage == "answer":
            answered = encoded.get(entry.material["benchmark"])
            if answered is None:  # another benchmark's, or another limit's
                continue
            images, questions = int(amount["images"]), int(amount["questions"])
            late = "late" in entry.material["arm"]
            amount["passes"] = passes(
                images, questions, answered.answer_tokens, study.batch_size, late
            )
        yield Work(stage, amount), cost["seconds"]


def text_of_all(estimates: Sequence[Estimate], cores: int) -> str:
    """The estimates of a study's chapters, and what is left of all of them."""
    parts = [text(each, cores) for each in estimates]
    if len(parts) > 1:
        seconds, size = sum(e.seconds for e in estimates), sum(e.bytes for e in estimates)
        wall = sum(e.wall_seconds(cores) for e in estimates)
        parts.append(
            f"All {len(parts)} chapters: {_time(seconds)} of work, {_time(wall)} on "
            f"{_count(cores, 'core')}, {size_text(size)} of disk."
            if seconds
            else DONE
        )
    return "\n\n".join(parts)


def clocked(path: Path, work: Work) -> Iterator[tuple[Work, float]]:
    """The work with what it took by Snakemake's clock; nothing where its file is damaged."""
    try:
        seconds = float(pd.read_csv(path, sep="\t")["s"].mean())
    except (ValueError, KeyError, TypeError):
        return
    yield work, seconds


def text(estimate: Estimate, cores: int) -> str:
    """The estimate for people."""
    study = estimate.study
    counts = {"arm": study.arms, "ablation": study.ablations, "benchmark": study.benchmarks}
    lines = [
        f"{study.title}: {', '.join(_count(len(own), what) for what, own in counts.items())}",
        "",
        *_grid([("benchmark", "images", "questions", "arms"), *_benchmark_lines(estimate)]),
        "",
        *_grid([("stage", "done", "time left", "rate"), *_stage_lines(estimate)]),
        "",
    ]
    if estimate.seconds:
        free = Machine().free(study.results)[1]
        disk = f"{size_text(estimate.bytes)} of disk ({size_text(free)} free)"
        lines.append(
            f"Left: {_time(estimate.seconds)} of work, {_time(estimate.wall_seconds(cores))} on "
            f"{_count(cores, 'core')}; {disk}."
        )
        if free < estimate.bytes:
            lines.append(
                f"That is too little: make room on the disk at {mount_of(study.results)}, or name "
                "another folder in `results`."
            )
    else:
        lines.append(DONE)
    unknown = ", ".join(name for name, size in estimate.sizes.items() if not size.is_known)
    if unknown:
        said = "Not counted, since their size is not known before they are first read"
        lines.append(f"{said}: {unknown}.")
    if uses_gpu(study):
        lines += ["", f"The whole study, from nothing. {sentence(total_cost(study))}"]
    return "\n".join(lines)


def _benchmark_lines(estimate: Estimate) -> Iterator[tuple[str, ...]]:
    names = {b.name for b in estimate.study.benchmarks}
    for name, size in estimate.sizes.items():
        counts = ("?" if n is None else f"{n:,}" for n in (size.images, size.questions))
        arms = f"{len(estimate.study.arms_of(name))}" if name in names else "(calibration)"
        yield name, *counts, arms


def _stage_lines(estimate: Estimate) -> Iterator[tuple[str, ...]]:
    for stage in STAGES:
        own = [step for step in estimate.steps if step.stage == stage]
        if not own:
            continue
        left = sum(estimate.rates.seconds(step.left) for step in own)
        source = "measured here" if estimate.rates.is_measured(stage) else "shipped"
        if source == "shipped" and stage in ON_GPU and uses_gpu(estimate.study):
            source = f"{gpu_here().name}, computed"
        done, of = sum(step.done for step in own), sum(step.of for step in own)
        yield stage, f"{done} of {of}", _time(left) if left else "-", source


def _grid(rows: Iterable[tuple[str, ...]]) -> list[str]:
    table = list(rows)
    first, *rest = (max(map(len, column)) for column in zip(*table, strict=True))
    return ["  ".join([row[0].ljust(first), *map(str.rjust, row[1:], rest)]) for row in table]


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def size_text(number: float) -> str:
    """A number of bytes, for people."""
    return f"{number / 1e6:,.0f} MB" if number < 1e9 else f"{number / 1e9:,.1f} GB"
