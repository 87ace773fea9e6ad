from prunesid.study.job import Job
from prunesid.study.report.notebook import run_notebook, write_page

job = Job(snakemake)
executed, page = job.outputs
run_notebook(job.input("notebook"), job.asked, executed)
write_page(executed, page)
