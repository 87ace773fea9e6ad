import pandas as pd

from prunesid.study.job import Job
from prunesid.study.report.information import write_information

job = Job(snakemake)
information = pd.read_parquet(job.input("information"))
write_information(information, job.study.benchmarks, job.study.bootstrap, job.outputs)
job.seal()
