from pathlib import Path

import torch

from prunesid.study.config.study import parse_study
from prunesid.study.provenance.store import Store
from prunesid.study.stages.answers import answer_benchmark
from prunesid.study.stages.shard import Shard
from prunesid.study.stages.source import runtime_of, source_of

torch.set_num_threads(snakemake.threads)
study = parse_study(snakemake.config, folder=Path(snakemake.params.folder))
benchmark = study.benchmark(snakemake.wildcards.benchmark)
data, questions = snakemake.input.get("data"), snakemake.input.get("questions")
answer_benchmark(
    source_of(study, benchmark, Path(data) if data else None),
    runtime_of(study),
    Path(snakemake.input.features),
    Path(snakemake.input.selections),
    study.arms_of(benchmark.name),
    Store(snakemake.params.store),
    Path(snakemake.output[0]),
    Shard.parse(snakemake.wildcards.shard),
    Path(questions) if questions else None,
)
