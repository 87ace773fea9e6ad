"""Time, memory and GPUs that each job of a study asks of a cluster's scheduler.

Times are the estimate of `prunesid.study.planning.rates` for a study of which nothing is done, on
the slowest GPU that is known, with room to spare: a scheduler ends a job that takes longer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from prunesid.families.declared import Geometry
from prunesid.study.config.study import Study
from prunesid.study.planning.hardware import gpu_named, memory_bytes, rates, weight_bytes
from prunesid.study.planning.progress import largest_shape, size_of, steps
from prunesid.study.planning.rates import SHIPPED, Rates, Work
from prunesid.study.stages.needs import needs_of
from prunesid.study.stages.shard import shards
from prunesid.study.stages.source import runtime_of

# Stages that load the model; choosing tokens uses the same device, but not the model.
RUN_MODEL = frozenset({"features", "questions", "encode", "answer", "measure"})
# How much longer a job may take than estimated, and the least that it is given. A benchmark whose
# size is not known before it is read gets a working day.
MARGIN, LEAST_MINUTES, UNKNOWN_MINUTES = 3, 15, 480
# Python with torch, transformers and lmms-eval takes 0.6e9; a row of scores (of a question and arm)
# takes 180 in a table, which is put together from those of the arms and copied where it is written.
BASE_BYTES, ROW_BYTES = 2e9, 500
# CUDA's libraries and context in the memory of the machine: a guess.
CUDA_BYTES = 2e9


@dataclass(frozen=True)
class JobNeeds:
    """What one job needs: minutes, MB of the machine's memory, GPUs.

    `memory_mb` leaves out the tokens that an arm keeps: the workflow adds them, from the features'
    size on disk.
    """

    minutes: int
    memory_mb: int
    gpus: int


def job_needs(study: Study) -> Mapping[tuple[str, str], JobNeeds]:
    """{(stage, benchmark or ablation): needs of its largest job}; computes nothing.

    The stages are those of `prunesid.study.planning.rates`; the one job of `information` is of
    "all images".
    """
    sizes = {benchmark.name: size_of(study, benchmark) for benchmark in study.encoded}
    rows = {n: (size.questions or 0) * len(study.arms_of(n)) for n, size in sizes.items()}
    tables = {a.name: sum(rows[b.name] for b in study.benchmarks_of(a)) for a in study.ablations}
    shape, on_gpu = (
        _measured(largest_shape(study), study.model),
        runtime_of(study).device.startswith("cuda"),
    )
    layers = max(len(needs_of(study.arms_of(b.name)).layers) for b in study.encoded)
    if on_gpu:
        speed = Rates(rates=rates(shape, gpu_named(""), study.dtype, study.batch_size))
        model: float = weight_bytes(shape, study.dtype)
    else:
        speed = Rates(rates=SHIPPED)
        model = memory_bytes(shape, study.dtype, study.batch_size, 1 + layers)

    def needs(stage: str, name: str, work: Work) -> JobNeeds:
        runs = stage in RUN_MODEL
        memory = BASE_BYTES + runs * model
        gpus = int(on_gpu and (runs or stage == "select"))
        memory += gpus * CUDA_BYTES
        memory += ROW_BYTES * {"score": rows, "compare": tables}.get(stage, {}).get(name, 0)
        if work.amount["jobs"] > 1:
            share = largest_part(study, sizes[name].images or 0)
            amount = {what: number * share for what, number in work.amount.items()}
            work = Work(stage, {**amount, "jobs": 1})
        unknown = name in sizes and not sizes[name].is_known
        least = UNKNOWN_MINUTES if unknown else LEAST_MINUTES
        minutes = max(least, math.ceil(MARGIN * speed.seconds(work) / 60))
        return JobNeeds(minutes, math.ceil(memory / 1e6), gpus)

    # In a folder that does not exist, nothing is done yet.
    todo = steps(replace(study, results=study.results / "none"), sizes)
    return {(step.stage, step.name): needs(step.stage, step.name, step.left) for step in todo}


def _measured(shape: Geometry, model: str) -> Geometry:
    """The sizes with the weights that a checkpoint on this machine has.

    They are taken for 16 bits each, so that one in 32 bits gets twice the room.
    """
    size = sum(path.stat().st_size for path in Path(model).glob("*.safetensors"))
    return replace(shape, counted=lambda: size // 2) if size else shape


def largest_part(study: Study, images: int) -> float:
    """The share of a benchmark's images in its largest part: 1 if there is only one block."""
    lengths = [len(part.take(range(images), study.batch_size)) for part in shards(study.shards)]
    return max(lengths) / images if images else 1.0
