from pathlib import Path

from prunesid.study.config.study import parse_study
from prunesid.study.provenance.store import Store
from prunesid.study.stages.costs import write_accounts

study = parse_study(snakemake.config, folder=Path(snakemake.params.folder))
write_accounts(
    [Path(path) for path in snakemake.input.features],
    [Path(path) for path in snakemake.input.answers],
    study.arms_of(snakemake.wildcards.benchmark),
    Store(snakemake.params.store),
    Path(snakemake.output[0]),
)
