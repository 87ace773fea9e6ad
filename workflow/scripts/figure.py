from pathlib import Path

import pandas as pd

from prunesid.study.analysis.comparison import read_comparison
from prunesid.study.analysis.pairs import read_pairs
from prunesid.study.analysis.strata import read_strata
from prunesid.study.config.study import parse_study
from prunesid.study.report.arm_facts import read_facts
from prunesid.study.report.figure import write_figure
from prunesid.study.report.figures import Subject

study = parse_study(snakemake.config, folder=Path(snakemake.params.folder))
ablation = study.ablation(snakemake.wildcards.ablation)
subject = Subject(
    read_comparison(Path(snakemake.input.comparison)),
    ablation,
    study.benchmarks_of(ablation),
    study.bootstrap,
    pd.read_parquet(snakemake.input.information),
    read_pairs(Path(snakemake.input.pairs)),
    read_strata(Path(snakemake.input.strata)),
    read_facts(Path(snakemake.input.arms)),
)
paths = [Path(path) for path in snakemake.output]
write_figure(subject, paths, snakemake.wildcards.picture)
