from prunesid.study.job import Job
from prunesid.study.stages.information import write_information
from prunesid.study.stages.shard import by_benchmark

job = Job(snakemake)
write_information(by_benchmark(snakemake.params.benchmarks, job.inputs("features")), job.output)
