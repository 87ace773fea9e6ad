from pathlib import Path

from prunesid.answering.store import Store
from prunesid.pocket.benchmarks import BENCHMARKS
from prunesid.stages.publication import BenchmarkFiles, publish_study
from prunesid.study.config import parse_study

study = parse_study(snakemake.config, folder=Path(snakemake.params.folder))
rendered = [b.task for b in study.benchmarks if b.task in BENCHMARKS]
data = dict(zip(rendered, map(Path, snakemake.input.data), strict=True))
names = ("scores", "selections", "features")
files = zip(*(map(Path, snakemake.input[name]) for name in names), strict=True)
publish_study(
    study,
    {
        b.name: BenchmarkFiles(*paths, data.get(b.task))
        for b, paths in zip(study.benchmarks, files, strict=True)
    },
    {
        a.name: Path(p).parent
        for a, p in zip(study.ablations, snakemake.input.comparisons, strict=True)
    },
    Path(snakemake.input.information),
    Store(snakemake.params.store),
    Path(snakemake.params.runs),
    Path(snakemake.output[0]),
)
