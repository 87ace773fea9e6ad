from pathlib import Path

from prunesid.study.job import Job
from prunesid.study.stages.costs import write_costs
from prunesid.study.stages.scores import score_benchmark

job = Job(snakemake)
benchmark = job.benchmark
score_benchmark(
    job.source,
    benchmark.name,
    benchmark.metric,
    job.inputs("answers"),
    job.store,
    Path(snakemake.output.table),
    job.inputs("heads"),
)
write_costs(
    job.inputs("heads"), job.inputs("answers"), job.arms, job.store, Path(snakemake.output.costs)
)
job.seal()
