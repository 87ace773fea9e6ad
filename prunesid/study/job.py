"""The inputs of the workflow's scripts, read from Snakemake's job object.

job = Job(snakemake)
score_benchmark(job.source, ..., job.inputs("answers"), job.store, job.output)
job.seal()
"""

from __future__ import annotations

import json
import logging
import os
import sys
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from prunesid.study.config.study import Benchmark, Study, parse_study
from prunesid.study.layout import Layout
from prunesid.study.provenance.seals import is_intact, seal, seal_again
from prunesid.study.provenance.staged import StagedStore
from prunesid.study.provenance.store import Store
from prunesid.study.stages.shard import Shard
from prunesid.study.stages.source import Runtime, Source, runtime_of, source_of

if TYPE_CHECKING:
    from prunesid.study.config.ablation import Ablation
    from prunesid.study.config.arm import Arm

log = logging.getLogger(__name__)


class Job:
    """A job of the study, whose folder the workflow adds to the configuration (`place`).

    It runs on as many threads as the rule takes. Attributes that follow from a wildcard, such as
    `benchmark`, need a rule with that wildcard.
    """

    def __init__(self, snakemake: Any) -> None:
        self._job = snakemake
        # Many jobs never import torch; it reads the variable when it is imported.
        os.environ["OMP_NUM_THREADS"] = str(snakemake.threads)
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(snakemake.threads)
        sys.excepthook = self._explain

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

    def _explain(
        self, kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        """Print an error that ends the job, and what helps if a disk is full."""
        sys.__excepthook__(kind, error, trace)
        from prunesid.study.planning.disk import full_disk

        said = full_disk(error, self.study)
        if said is not None:
            print(f"\n{said}", file=sys.stderr)

    @cached_property
    def study(self) -> Study:
        config = dict(self._job.config)
        folder = Path(config.pop("place")["folder"])
        return parse_study(config, folder=folder)

    @cached_property
    def store(self) -> Store:
        """The study's store; if results are staged, the folders that the rule declares."""
        if not self._staged:
            return Store(Layout.of(self.study).store)
        own, read = self._job.output.get("store"), self._job.input.get("stores") or []
        if own:
            # Snakemake expects the folder even if the job finds nothing to do.
            Path(own).mkdir(parents=True, exist_ok=True)
        return StagedStore([*([own] if own else []), *read])

    @property
    def _staged(self) -> bool:
        """Whether the job's files are copies from a storage."""
        return bool(self._job.config["place"].get("staged"))

    @property
    def asked(self) -> Any:
        """The settings that the workflow wrote to the job's input `asked`, as JSON values."""
        return json.loads(self.input("asked").read_text())

    def seal(self) -> None:
        """Store the checksums of the outputs; a script calls it last.

        Staged results get no seal, since jobs that read them get copies without it.
        """
        if not self._staged:
            seal(self.outputs)

    def features(self) -> Path:
        """The features of the job's part; encoded again if they are damaged and not staged."""
        path = self.input("features")
        if not self._staged and not is_intact(path):
            from prunesid.study.stages.features import encode_part
            from prunesid.study.stages.needs import needs_of

            log.warning("%s is damaged; encoding it again", path)
            then = path.stat()
            encode_part(
                self.benchmark.name, self.source, self.runtime, needs_of(self.arms), self.shard,
                features=path, skip_unreadable=self.study.skip_unreadable,
            )  # fmt: skip
            seal_again(path)
            # The old time is kept, so that Snakemake does not rerun what was made from them.
            os.utime(path, ns=(then.st_atime_ns, then.st_mtime_ns))
        return path

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
        """The benchmark's questions, from a file of ours where we render it."""
        return source_of(self.study, self.benchmark, self.optional("data"))

    @property
    def runtime(self) -> Runtime:
        return runtime_of(self.study)
