from prunesid.study.job import Job
from prunesid.study.stages.features import extract
from prunesid.study.stages.needs import needs_of

job = Job(snakemake)
extract(job.source, job.runtime, needs_of(job.arms), job.output, job.shard)
