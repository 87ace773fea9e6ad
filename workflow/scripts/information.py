from prunesid.study.job import Job
from prunesid.study.stages.information import write_information

job = Job(snakemake)
write_information(job.inputs("parts"), job.output)
job.seal()
