from pathlib import Path

import pandas as pd

from prunesid.study.config.study import parse_study
from prunesid.study.report.information import write_information

study = parse_study(snakemake.config, folder=Path(snakemake.params.folder))
write_information(
    pd.read_parquet(snakemake.input.information),
    study.benchmarks,
    study.bootstrap,
    [Path(path) for path in snakemake.output],
)
