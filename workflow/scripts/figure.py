import pandas as pd

from prunesid.study.analysis.comparison import read_comparison
from prunesid.study.analysis.pairs import read_pairs
from prunesid.study.analysis.strata import read_strata
from prunesid.study.job import Job
from prunesid.study.report.arm_facts import read_facts
from prunesid.study.report.figures import Subject, write_figure

job = Job(snakemake)
subject = Subject(
    read_comparison(job.input("comparison")),
    job.ablation,
    job.study.benchmarks_of(job.ablation),
    job.study.bootstrap,
    pd.read_parquet(job.input("information")),
    read_pairs(job.input("pairs")),
    read_strata(job.input("strata")),
    read_facts(job.input("arms")),
)
write_figure(subject, job.outputs, snakemake.wildcards.picture)
