"""The input of the workflow's scripts, taken from Snakemake's object of their job.

job = Job(snakemake)
score_benchmark(job.source, ..., job.inputs("answers"), job.store, job.output)
"""

from __future__ import annotations

import os
import sys
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunesid.study.config.study import Benchmark, Study, parse_study
from prunesid.study.layout import Layout
from prunesid.study.provenance.store import Store
from prunesid.study.stages.shard import Shard
from prunesid.study.stages.source import Runtime, Source, runtime_of, source_of

if TYPE_CHECKING:
    from prunesid.study.config.ablation import Ablation
    from prunesid.study.config.arm import Arm


class Job:
    """A job of the study; its rule has the study's folder among its params (`folder`).

    It runs on as many threads as the rule takes. What follows from a wildcard, such as `benchmark`,
    is there for rules that have it.
    """

    def __init__(self, snakemake: Any) -> None:
        self._job = snakemake
        # Many jobs never import torch; it reads the variable when it is imported.
        os.environ["OMP_NUM_THREADS"] = str(snakemake.threads)
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(snakemake.threads)

    def input(self, name: str) -> Path:
        """The one input of that name."""
        return Path(self._job.input[name])

    def optional(self, name: str) -> Path | None:
        """The one input of that name; None if the rule has none, or the job needs none."""
        path = self._job.input.get(name)
        return Path(path) if path else None

    def inputs(self, name: str) -> list[Path]:
        """The inputs of that name, of which there are any number."""
        return [Path(path) for path in self._job.input[name]]

    @property
    def outputs(self) -> list[Path]:
        return [Path(path) for path in self._job.output]

    @property
    def output(self) -> Path:
        """The first output."""
        return self.outputs[0]

    @cached_property
    def study(self) -> Study:
        return parse_study(self._job.config, folder=Path(self._job.params.folder))

    @property
    def store(self) -> Store:
        return Store(Layout.of(self.study).store)

    @property
    def benchmark(self) -> Benchmark:
        return self.study.benchmark(self._job.wildcards.benchmark)

    @property
    def arms(self) -> tuple[Arm, ...]:
        """The arms of the benchmark."""
        return self.study.arms_of(self._job.wildcards.benchmark)

    @property
    def ablation(self) -> Ablation:
        return self.study.ablation(self._job.wildcards.ablation)

    @property
    def shard(self) -> Shard:
        return Shard.parse(self._job.wildcards.shard)

    @property
    def source(self) -> Source:
        """The benchmark's questions, from `data` where that is among the inputs."""
        return source_of(self.study, self.benchmark, self.optional("data"))

    @property
    def runtime(self) -> Runtime:
        return runtime_of(self.study)
