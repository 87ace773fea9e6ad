from prunesid.study.job import Job
from prunesid.study.stages.budgets import read_budgets
from prunesid.study.stages.measure import measure_arms
from prunesid.study.stages.source import source_of

job = Job(snakemake)
study, ablation = job.study, job.ablation
benchmark, budgets = study.benchmark(ablation.clocked), job.optional("budgets")
measure_arms(
    source_of(study, benchmark, job.optional("data")),
    job.runtime,
    ablation.clocked_arms,
    ablation.latency,
    {} if budgets is None else read_budgets(budgets, benchmark.name),
    job.inputs("answers"),
    job.store,
    job.output,
)
job.seal()
