def encoder_arms(benchmark):
    """The arms of a benchmark that act in the vision encoder."""
    return [arm for arm in STUDY.arms_of(benchmark) if arm.encodes]


def encoders_asked(wildcards):
    return [str(arm) for arm in encoder_arms(wildcards.benchmark)]


def encoded_of(wildcards):
    """The files of the encoder's passes of these arms, where a benchmark has any."""
    return rules.encode.output[0] if encoder_arms(wildcards.benchmark) else []


rule encode:
    input:
        data=task_data,
        weights=weights(),
        head=rules.features.output.head,
        asked=asked("encode", encoders_asked),
        code=code("encode"),
        earlier=earlier(LAYOUT.keys("encoded")),
    output:
        LAYOUT.keys("encoded"),
        **stored(LAYOUT.keys("encoded")),
    benchmark:
        LAYOUT.time("encode", "{benchmark}", "{shard}")
    threads: model_threads()
    resources:
        **resources_of("encode"),
    message:
        "Methods inside the vision encoder on {wildcards.benchmark}, {wildcards.shard}"
    script:
        "../scripts/encode.py"
