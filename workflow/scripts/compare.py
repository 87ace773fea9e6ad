from pathlib import Path

import pandas as pd

from prunesid.study.analysis.arm_facts import write_arms
from prunesid.study.analysis.comparison import arm_values, compare_samples, sample, write_csv
from prunesid.study.analysis.measurement import read_scores
from prunesid.study.analysis.pairs import compare_pairs
from prunesid.study.analysis.strata import by_stratum
from prunesid.study.job import Job
from prunesid.study.stages.shard import by_benchmark

job = Job(snakemake)
study, ablation = job.study, job.ablation
benchmarks = study.benchmarks_of(ablation)
scores = read_scores(job.inputs("scores"))
samples = sample(scores, ablation, benchmarks, study.bootstrap)
write_csv(compare_samples(samples), Path(snakemake.output.comparison))
arm_values(samples).to_parquet(snakemake.output.arm_values, index=False)
write_csv(compare_pairs(samples), Path(snakemake.output.pairs))
information = pd.read_parquet(job.input("information"))
strata = by_stratum(scores, ablation, benchmarks, information, study.bootstrap)
write_csv(strata, Path(snakemake.output.strata))
names = [benchmark.name for benchmark in benchmarks]
write_arms(
    ablation,
    scores,
    by_benchmark(names, job.inputs("selections")),
    dict(zip(names, job.inputs("costs"), strict=True)),
    job.store,
    Path(snakemake.output.arms),
    Path(snakemake.output.agreement),
)
