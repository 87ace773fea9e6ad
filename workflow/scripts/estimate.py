from prunesid.study.job import Job
from prunesid.study.planning.estimate import estimate, text

print(text(estimate(Job(snakemake).study), snakemake.threads), flush=True)
