from pathlib import Path

from prunesid.study.config.study import parse_study
from prunesid.study.planning.estimate import estimate, text

study = parse_study(snakemake.config, folder=Path(snakemake.params.folder))
print(text(estimate(study), snakemake.threads), flush=True)
