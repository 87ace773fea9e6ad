rule features:
    input:
        data=task_data,
        weights=weights(),
        code=sources("models", "stages/features.py", "stages/material.py"),
    output:
        MODEL / "{benchmark}" / "features.safetensors",
    benchmark:
        MODEL / "{benchmark}" / "times" / "features.tsv"
    threads: model_threads()
    resources:
        gpu=1,
    params:
        needs=lambda wildcards: needs_text(wildcards.benchmark),
        limit=STUDY.limit,
        runtime=(STUDY.dtype, STUDY.device, STUDY.batch_size),
        folder=str(STUDY_FOLDER),
    message:
        "Vision tower on {wildcards.benchmark}"
    script:
        "../scripts/features.py"


rule information:
    input:
        features=rules.features.output[0],
        code=sources("information.py", "numerics.py", "stages/information.py"),
    output:
        MODEL / "{benchmark}" / "information.parquet",
    benchmark:
        MODEL / "{benchmark}" / "times" / "information.tsv"
    message:
        "Information scores of {wildcards.benchmark}"
    script:
        "../scripts/information.py"


TARGETS += expand(
    rules.information.output[0], benchmark=[b.name for b in STUDY.benchmarks]
)
