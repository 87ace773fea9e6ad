from pathlib import Path

import pandas as pd

from prunesid.study.analysis.comparison import read_comparison
from prunesid.study.config.study import parse_study
from prunesid.study.report.arm_facts import facts_table, read_facts
from prunesid.study.report.paper import load_paper
from prunesid.study.report.table import build_table, write_table

study = parse_study(snakemake.config, folder=Path(snakemake.params.folder))
ablation = study.ablation(snakemake.wildcards.ablation)
table = build_table(
    read_comparison(Path(snakemake.input.comparison)),
    ablation,
    study.benchmarks_of(ablation),
    study.bootstrap,
    load_paper(Path(snakemake.input.paper[0]).parent),
    pd.read_parquet(snakemake.input.information),
    facts_table(
        read_facts(Path(snakemake.input.arms)),
        read_facts(Path(snakemake.input.agreement)),
        ablation,
    ),
)
write_table(table, [Path(path) for path in snakemake.output])
