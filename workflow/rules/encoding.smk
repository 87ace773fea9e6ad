def encoder_arms(benchmark):
    """The arms of a benchmark that act in the vision encoder."""
    return [arm for arm in STUDY.arms_of(benchmark) if arm.encodes]


def encoded_of(wildcards):
    """The files of the encoder's passes of these arms, where a benchmark has any."""
    return rules.encode.output[0] if encoder_arms(wildcards.benchmark) else []


rule encode:
    input:
        data=task_data,
        weights=weights(),
        features=FEATURES,
        code=code("encode"),
    output:
        LAYOUT.keys("encoded"),
    benchmark:
        LAYOUT.time("encode", "{benchmark}", "{shard}")
    priority: PRIORITY.get("encode", 0)
    threads: model_threads()
    resources:
        **asked("encode"),
    params:
        arms=lambda wildcards: [arm.name for arm in encoder_arms(wildcards.benchmark)],
        folder=str(STUDY_FOLDER),
    message:
        "Methods inside the vision encoder on {wildcards.benchmark}, {wildcards.shard}"
    script:
        "../scripts/encode.py"
