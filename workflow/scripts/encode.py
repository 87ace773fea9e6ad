from pathlib import Path

import torch

from prunesid.study.config.study import parse_study
from prunesid.study.provenance.store import Store
from prunesid.study.stages.encoding import encode_arms
from prunesid.study.stages.source import runtime_of, source_of

torch.set_num_threads(snakemake.threads)
study = parse_study(snakemake.config, folder=Path(snakemake.params.folder))
benchmark = study.benchmark(snakemake.wildcards.benchmark)
data = snakemake.input.get("data")
encode_arms(
    source_of(study, benchmark, Path(data) if data else None),
    runtime_of(study),
    Path(snakemake.input.features),
    study.arms_of(benchmark.name),
    Store(snakemake.params.store),
    Path(snakemake.output[0]),
)
