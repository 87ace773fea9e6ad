from prunesid.study.job import Job
from prunesid.study.stages.costs import write_accounts

job = Job(snakemake)
write_accounts(job.inputs("features"), job.inputs("answers"), job.arms, job.store, job.output)
