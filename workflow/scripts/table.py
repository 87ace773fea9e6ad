import pandas as pd

from prunesid.study.analysis.comparison import read_comparison
from prunesid.study.job import Job
from prunesid.study.report.arm_facts import facts_table, read_facts
from prunesid.study.report.paper import load_paper
from prunesid.study.report.table import build_table, write_table

job = Job(snakemake)
ablation = job.ablation
table = build_table(
    read_comparison(job.input("comparison")),
    ablation,
    job.study.benchmarks_of(ablation),
    job.study.bootstrap,
    load_paper(job.inputs("paper")[0].parent),
    pd.read_parquet(job.input("information")),
    facts_table(read_facts(job.input("arms")), read_facts(job.input("agreement")), ablation),
)
write_table(table, job.outputs)
