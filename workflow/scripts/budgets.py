from pathlib import Path

from prunesid.stages.budgets import write_budgets

write_budgets(
    Path(snakemake.input.information),
    snakemake.params.wanted,
    snakemake.params.calibration,
    Path(snakemake.output[0]),
)
