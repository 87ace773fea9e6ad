from pathlib import Path

from prunesid.pocket.benchmarks import BENCHMARKS
from prunesid.study.config.study import parse_study
from prunesid.study.provenance.store import Store
from prunesid.study.stages.shard import by_benchmark
from prunesid.study.tracking.study_runs import BenchmarkFiles, publish_study

study = parse_study(snakemake.config, folder=Path(snakemake.params.folder))
rendered = [b.task for b in study.benchmarks if b.task in BENCHMARKS]
data = dict(zip(rendered, map(Path, snakemake.input.data), strict=True))
names = [benchmark.name for benchmark in study.benchmarks]
selections, features = (
    by_benchmark(names, snakemake.input[stage]) for stage in ("selections", "features")
)
publish_study(
    study,
    {
        b.name: BenchmarkFiles(Path(scores), selections[b.name], features[b.name], data.get(b.task))
        for b, scores in zip(study.benchmarks, snakemake.input.scores, strict=True)
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
