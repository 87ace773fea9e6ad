import pandas as pd

from prunesid.study.analysis.comparison import read_comparison
from prunesid.study.job import Job
from prunesid.study.report.arm_facts import facts_table, read_facts
from prunesid.study.report.figures import Subject
from prunesid.study.report.paper import load_paper
from prunesid.study.report.table import build_table, write_table

job = Job(snakemake)
subject = Subject(
    read_comparison(job.input("comparison")),
    job.ablation,
    job.study.benchmarks_of(job.ablation),
    job.study.bootstrap,
    pd.read_parquet(job.input("information")),
)
arms, agreement = read_facts(job.input("arms")), read_facts(job.input("agreement"))
paper = load_paper(job.inputs("paper")[0].parent)
write_table(build_table(subject, paper, facts_table(arms, agreement, job.ablation)), job.outputs)
