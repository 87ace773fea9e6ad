from pathlib import Path

from prunesid.study.comparison import compare, write_comparison
from prunesid.study.config import parse_study
from prunesid.study.measurement import read_scores

study = parse_study(snakemake.config, folder=Path(snakemake.params.folder))
ablation = study.ablation(snakemake.wildcards.ablation)
scores = read_scores(Path(path) for path in snakemake.input.scores)
table = compare(scores, ablation, study.benchmarks_of(ablation), study.bootstrap)
write_comparison(table, Path(snakemake.output[0]))
