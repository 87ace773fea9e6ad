from pathlib import Path

from prunesid.study.job import Job
from prunesid.study.stages.features import encode_part
from prunesid.study.stages.needs import needs_of

job = Job(snakemake)
wanted = {name: Path(path) for name, path in snakemake.output.items()}
encode_part(
    job.benchmark.name,
    job.source,
    job.runtime,
    needs_of(job.arms),
    job.shard,
    **wanted,
    skip_unreadable=job.study.skip_unreadable,
)
job.seal()
