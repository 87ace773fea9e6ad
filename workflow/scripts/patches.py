from prunesid.study.job import Job
from prunesid.study.report.kept_patches import write_kept_patches
from prunesid.study.stages.patches import first_crops, read_scenes
from prunesid.study.stages.source import source_of

job = Job(snakemake)
patches = job.study.patches
scenes = read_scenes(
    patches,
    source_of(job.study, job.study.benchmark(patches.benchmark), job.optional("data")),
    job.input("information"),
    first_crops(job.inputs("heads"), job.inputs("selections")),
    job.store,
)
write_kept_patches(scenes, job.outputs)
job.seal()
