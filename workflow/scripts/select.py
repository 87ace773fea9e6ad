from prunesid.study.job import Job
from prunesid.study.stages.budgets import read_budgets
from prunesid.study.stages.selection import select_arms

job = Job(snakemake)
budgets = job.optional("budgets")
select_arms(
    job.features(),
    job.arms,
    job.store,
    job.output,
    read_budgets(budgets, job.benchmark.name) if budgets else None,
    job.optional("encoded"),
    job.optional("questions"),
    job.runtime.device,
)
job.seal()
