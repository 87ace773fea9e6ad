from pathlib import Path

from prunesid.study.config.study import parse_study
from prunesid.study.provenance.store import Store
from prunesid.study.report.kept_patches import write_kept_patches
from prunesid.study.stages.patches import first_crops, read_scenes
from prunesid.study.stages.source import source_of

study = parse_study(snakemake.config, folder=Path(snakemake.params.folder))
data = snakemake.input.get("data")
scenes = read_scenes(
    study.patches,
    source_of(study, study.benchmark(study.patches.benchmark), Path(data) if data else None),
    Path(snakemake.input.information),
    first_crops(
        *([Path(path) for path in snakemake.input[name]] for name in ("features", "selections"))
    ),
    Store(snakemake.params.store),
)
write_kept_patches(scenes, [Path(path) for path in snakemake.output])
