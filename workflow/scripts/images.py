from pathlib import Path

from prunesid.pocket.benchmarks import render

render(snakemake.wildcards.task, Path(snakemake.output[0]), snakemake.params.limit)
