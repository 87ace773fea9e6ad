def asking_arms(benchmark):
    """The arms of a benchmark that choose tokens by image and question."""
    return [arm for arm in STUDY.arms_of(benchmark) if arm.asked]


def questions_of(wildcards):
    """The questions as these arms compare them with patches, where a benchmark has any."""
    return rules.questions.output[0] if asking_arms(wildcards.benchmark) else []


def encoders_read(wildcards):
    """What compares questions with patches, and the text tower among it."""
    read = {each for arm in asking_arms(wildcards.benchmark) for each in arm.asked}
    return {"asked": sorted(read), "text_tower": text_tower()}


rule questions:
    input:
        data=task_data,
        weights=weights(),
        head=rules.features.output.head,
        asked=asked("questions", encoders_read),
        code=code("questions"),
    output:
        LAYOUT.questions(),
    benchmark:
        LAYOUT.time("questions", "{benchmark}", "{shard}")
    threads: model_threads()
    resources:
        **resources_of("questions"),
    message:
        "Questions of {wildcards.benchmark}, {wildcards.shard}"
    script:
        "../scripts/questions.py"
