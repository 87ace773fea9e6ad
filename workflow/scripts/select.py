from pathlib import Path

import torch

from prunesid.study.config.study import parse_study
from prunesid.study.provenance.store import Store
from prunesid.study.stages.budgets import read_budgets
from prunesid.study.stages.selection import select_arms

torch.set_num_threads(snakemake.threads)
benchmark, budgets = snakemake.wildcards.benchmark, snakemake.input.get("budgets")
encoded, questions = snakemake.input.get("encoded"), snakemake.input.get("questions")
study = parse_study(snakemake.config, folder=Path(snakemake.params.folder))
select_arms(
    Path(snakemake.input.features),
    study.arms_of(benchmark),
    Store(snakemake.params.store),
    Path(snakemake.output[0]),
    read_budgets(Path(budgets), benchmark) if budgets else None,
    Path(encoded) if encoded else None,
    Path(questions) if questions else None,
)
