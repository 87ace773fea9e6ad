from dataclasses import replace

from prunesid.study.explorer import write_explorer
from prunesid.study.job import Job

job = Job(snakemake)
# Where results are staged, they are copies beside the explorer's.
study = replace(job.study, results=job.output.parents[1])
write_explorer(study, job.store, job.output)
job.seal()
