from pathlib import Path

import pandas as pd

from prunesid.render.information import write_information
from prunesid.study.config import parse_study

study = parse_study(snakemake.config, folder=Path(snakemake.params.folder))
write_information(
    pd.read_parquet(snakemake.input.information),
    study.benchmarks,
    study.bootstrap,
    [Path(path) for path in snakemake.output],
)
