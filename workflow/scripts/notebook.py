from pathlib import Path

from prunesid.study.report.notebook import run_notebook, write_page

executed, page = map(Path, snakemake.output)
run_notebook(Path(snakemake.input.notebook[0]), snakemake.params.asked, executed)
write_page(executed, page)
