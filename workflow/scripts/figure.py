from pathlib import Path

from prunesid.render.figure import write_figure
from prunesid.study.comparison import read_comparison
from prunesid.study.config import parse_study

study = parse_study(snakemake.config, folder=Path(snakemake.params.folder))
ablation = study.ablation(snakemake.wildcards.ablation)
write_figure(
    read_comparison(Path(snakemake.input.comparison)),
    ablation,
    study.benchmarks_of(ablation),
    [Path(path) for path in snakemake.output],
)
