from prunesid.study.analysis.comparison import read_comparison
from prunesid.study.analysis.strata import read_strata
from prunesid.study.job import Job
from prunesid.study.report.arm_facts import read_facts
from prunesid.study.report.figures import Subject
from prunesid.study.report.method_page import write_pages

job = Job(snakemake)
subject = Subject(
    read_comparison(job.input("comparison")),
    job.ablation,
    job.study.benchmarks_of(job.ablation),
    job.study.bootstrap,
    strata=read_strata(job.input("strata")),
    facts=read_facts(job.input("arms")),
)
write_pages(subject, read_facts(job.input("agreement")), job.output)
job.seal()
