from pathlib import Path

import torch

from prunesid.study.config.study import parse_study
from prunesid.study.stages.features import extract
from prunesid.study.stages.needs import needs_of
from prunesid.study.stages.shard import Shard
from prunesid.study.stages.source import runtime_of, source_of

torch.set_num_threads(snakemake.threads)
study = parse_study(snakemake.config, folder=Path(snakemake.params.folder))
benchmark = study.benchmark(snakemake.wildcards.benchmark)
data = snakemake.input.get("data")
extract(
    source_of(study, benchmark, Path(data) if data else None),
    runtime_of(study),
    needs_of(study.arms_of(benchmark.name)),
    Path(snakemake.output[0]),
    Shard.parse(snakemake.wildcards.shard),
)
