from prunesid.study.job import Job
from prunesid.study.stages.answers import answer_benchmark

job = Job(snakemake)
answer_benchmark(
    job.source,
    job.runtime,
    job.features(),
    job.input("selections"),
    job.arms,
    job.store,
    job.output,
    job.shard,
    job.optional("questions"),
)
job.seal()
