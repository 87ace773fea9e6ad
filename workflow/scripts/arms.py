from pathlib import Path

from prunesid.answering.store import Store
from prunesid.stages.arms import write_arms
from prunesid.study.config import parse_study

study = parse_study(snakemake.config, folder=Path(snakemake.params.folder))
ablation = study.ablation(snakemake.wildcards.ablation)
names = [b.name for b in study.benchmarks_of(ablation)]
write_arms(
    ablation,
    dict(zip(names, map(Path, snakemake.input.selections), strict=True)),
    Path(snakemake.input.information),
    Store(snakemake.params.store),
    Path(snakemake.output.arms),
    Path(snakemake.output.agreement),
)
