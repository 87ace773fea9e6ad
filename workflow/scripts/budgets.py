from prunesid.study.job import Job
from prunesid.study.stages.budgets import write_budgets

job = Job(snakemake)
write_budgets(job.input("information"), **job.asked, output=job.output)
job.seal()
