from prunesid.study.job import Job
from prunesid.study.stages.encoding import encode_arms

job = Job(snakemake)
encode_arms(job.source, job.runtime, job.input("head"), job.arms, job.store, job.output)
job.seal()
