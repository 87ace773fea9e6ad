from pathlib import Path

from prunesid.stages.estimate import estimate, text
from prunesid.study.config import parse_study

study = parse_study(snakemake.config, folder=Path(snakemake.params.folder))
print(text(estimate(study), snakemake.threads), flush=True)
