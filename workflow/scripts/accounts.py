from pathlib import Path

from prunesid.answering.store import Store
from prunesid.stages.accounts import write_accounts
from prunesid.study.config import parse_study

study = parse_study(snakemake.config, folder=Path(snakemake.params.folder))
write_accounts(
    [Path(path) for path in snakemake.input.features],
    [Path(path) for path in snakemake.input.answers],
    study.arms_of(snakemake.wildcards.benchmark),
    Store(snakemake.params.store),
    Path(snakemake.output[0]),
)
