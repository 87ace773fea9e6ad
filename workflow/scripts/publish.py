from prunesid.pocket.benchmarks import BENCHMARKS
from prunesid.study.job import Job
from prunesid.study.layout import Layout
from prunesid.study.stages.shard import by_benchmark
from prunesid.study.tracking.study_runs import BenchmarkFiles, publish_study

job = Job(snakemake)
study = job.study
rendered = [b.task for b in study.benchmarks if b.task in BENCHMARKS]
data = dict(zip(rendered, job.inputs("data"), strict=True))
names = [benchmark.name for benchmark in study.benchmarks]
selections, heads = (by_benchmark(names, job.inputs(stage)) for stage in ("selections", "heads"))
publish_study(
    study,
    {
        b.name: BenchmarkFiles(scores, selections[b.name], heads[b.name], data.get(b.task))
        for b, scores in zip(study.benchmarks, job.inputs("scores"), strict=True)
    },
    {
        ablation.name: path.parent
        for ablation, path in zip(study.ablations, job.inputs("comparisons"), strict=True)
    },
    job.input("information"),
    job.store,
    Layout.of(study).runs,
    job.output,
)
