from prunesid.pocket.benchmarks import render
from prunesid.study.job import Job

job = Job(snakemake)
render(snakemake.wildcards.task, job.output, job.asked)
job.seal()
