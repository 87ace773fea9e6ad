from pathlib import Path

from prunesid.stages.publication import publish_study
from prunesid.study.config import parse_study

study = parse_study(snakemake.config, folder=Path(snakemake.params.folder))
publish_study(
    study,
    dict(zip((b.name for b in study.benchmarks), map(Path, snakemake.input.scores), strict=True)),
    {
        a.name: Path(p).parent
        for a, p in zip(study.ablations, snakemake.input.comparisons, strict=True)
    },
    Path(snakemake.params.runs),
    Path(snakemake.output[0]),
)
