from pathlib import Path

from prunesid.study.job import Job
from prunesid.study.report.evaluations import write_evaluations

job = Job(snakemake)
names = [benchmark.name for benchmark in job.study.benchmarks]
scores = dict(zip(names, job.inputs("scores"), strict=True))
write_evaluations(job.study, scores, Path(snakemake.output[0]))
