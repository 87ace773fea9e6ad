from pathlib import Path

from prunesid.answering.store import Store
from prunesid.render.patches import write_patches
from prunesid.stages.features import read_head
from prunesid.stages.patches import read_scenes
from prunesid.stages.source import source_of
from prunesid.study.config import parse_study

study = parse_study(snakemake.config, folder=Path(snakemake.params.folder))
data = snakemake.input.get("data")
scenes = read_scenes(
    study.patches,
    source_of(study, study.benchmark(study.patches.benchmark), Path(data) if data else None),
    Path(snakemake.input.information),
    Path(snakemake.input.selections[0]),
    read_head(Path(snakemake.input.features[0])),
    Store(snakemake.params.store),
)
write_patches(scenes, [Path(path) for path in snakemake.output])
