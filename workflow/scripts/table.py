from pathlib import Path

import pandas as pd

from prunesid.render.facts import facts_table, read_facts
from prunesid.render.paper import load_paper
from prunesid.render.table import build_table, write_table
from prunesid.study.comparison import read_comparison
from prunesid.study.config import parse_study

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
