from prunesid.study.job import Job
from prunesid.study.stages.questions import write_questions

job = Job(snakemake)
write_questions(job.source, job.runtime, job.arms, job.input("head"), job.output, job.shard)
job.seal()
