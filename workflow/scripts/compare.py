from pathlib import Path

import pandas as pd

from prunesid.study.analysis.comparison import compare_samples, sample, write_comparison
from prunesid.study.analysis.measurement import read_scores
from prunesid.study.analysis.pairs import compare_pairs
from prunesid.study.analysis.strata import by_stratum
from prunesid.study.config.study import parse_study
from prunesid.study.provenance.store import Store
from prunesid.study.stages.arm_facts import write_arms
from prunesid.study.stages.shard import by_benchmark

study = parse_study(snakemake.config, folder=Path(snakemake.params.folder))
ablation = study.ablation(snakemake.wildcards.ablation)
benchmarks = study.benchmarks_of(ablation)
scores = read_scores(Path(path) for path in snakemake.input.scores)
samples = sample(scores, ablation, benchmarks, study.bootstrap)
write_comparison(compare_samples(samples), Path(snakemake.output.comparison))
write_comparison(compare_pairs(samples), Path(snakemake.output.pairs))
information = pd.read_parquet(snakemake.input.information)
strata = by_stratum(scores, ablation, benchmarks, information, study.bootstrap)
write_comparison(strata, Path(snakemake.output.strata))
names = [benchmark.name for benchmark in benchmarks]
selections = by_benchmark(names, snakemake.input.selections)
accounts = {n: Path(path) for n, path in zip(names, snakemake.input.accounts, strict=True)}
write_arms(
    ablation,
    scores,
    selections,
    accounts,
    Store(snakemake.params.store),
    Path(snakemake.output.arms),
    Path(snakemake.output.agreement),
)
