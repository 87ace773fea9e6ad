from pathlib import Path

from prunesid.study.stages.budgets import write_budgets

write_budgets(
    Path(snakemake.input.information),
    snakemake.params.wanted,
    snakemake.params.calibration,
    Path(snakemake.output[0]),
)
