from prunesid.study.job import Job
from prunesid.study.stages.costs import write_costs

job = Job(snakemake)
write_costs(job.inputs("heads"), job.inputs("answers"), job.arms, job.store, job.output)
job.seal()
