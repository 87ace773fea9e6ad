from pathlib import Path

from prunesid.study.config.study import parse_study
from prunesid.study.provenance.store import Store
from prunesid.study.stages.scores import score_benchmark
from prunesid.study.stages.source import source_of

study = parse_study(snakemake.config, folder=Path(snakemake.params.folder))
benchmark = study.benchmark(snakemake.wildcards.benchmark)
data = snakemake.input.get("data")
score_benchmark(
    source_of(study, benchmark, Path(data) if data else None),
    benchmark.name,
    benchmark.metric,
    [Path(path) for path in snakemake.input.answers],
    Store(snakemake.params.store),
    Path(snakemake.output.table),
)
