from prunesid.study.explorer import write_explorer
from prunesid.study.job import Job

job = Job(snakemake)
write_explorer(job.study, job.output)
job.seal()
