from pathlib import Path

import pandas as pd

from prunesid.study.analysis.arm_facts import write_arms
from prunesid.study.analysis.comparison import (
    arm_values,
    compare_samples,
    read_comparison,
    sample,
    write_csv,
)
from prunesid.study.analysis.measurement import read_scores
from prunesid.study.analysis.pairs import compare_pairs, read_pairs
from prunesid.study.analysis.strata import by_stratum, read_strata
from prunesid.study.job import Job
from prunesid.study.report.arm_facts import facts_table, read_facts
from prunesid.study.report.figures import Subject, write_figure
from prunesid.study.report.findings import write_summary
from prunesid.study.report.paper import load_paper
from prunesid.study.report.table import build_table, write_table
from prunesid.study.stages.shard import by_benchmark

job = Job(snakemake)
study, ablation = job.study, job.ablation
benchmarks = study.benchmarks_of(ablation)
names = [benchmark.name for benchmark in benchmarks]
results = ("comparison", "pairs", "strata", "arms", "agreement")
comparison, pairs, strata, arms, agreement = (Path(snakemake.output[name]) for name in results)

scores = read_scores(job.inputs("scores"))
information = pd.read_parquet(job.input("information"))
samples = sample(scores, ablation, benchmarks, study.bootstrap)
write_csv(compare_samples(samples), comparison)
arm_values(samples).to_parquet(snakemake.output.arm_values, index=False)
write_csv(compare_pairs(samples), pairs)
write_csv(by_stratum(scores, ablation, benchmarks, information, study.bootstrap), strata)
write_arms(
    ablation,
    scores,
    by_benchmark(names, job.inputs("selections")),
    dict(zip(names, job.inputs("costs"), strict=True)),
    job.store,
    arms,
    agreement,
)

# Tables and pictures show what the files say, in as many digits.
facts = read_facts(arms)
subject = Subject(
    read_comparison(comparison),
    ablation,
    benchmarks,
    study.bootstrap,
    information,
    read_pairs(pairs),
    read_strata(strata),
    facts,
)
paper = load_paper(job.inputs("paper")[0].parent)
table = build_table(subject, paper, facts_table(facts, read_facts(agreement), ablation))
write_table(table, [Path(path) for path in snakemake.output.table])
for picture in ablation.figure.kinds:
    paths = [Path(path) for path in snakemake.output.pictures if Path(path).stem == picture]
    write_figure(subject, paths, picture)
write_summary(subject, Path(snakemake.output.summary))
job.seal()
