def asking_arms(benchmark):
    """The arms of a benchmark that choose tokens by image and question."""
    return [arm for arm in STUDY.arms_of(benchmark) if arm.asked]


def questions_of(wildcards):
    """The questions as these arms compare them with patches, where a benchmark has any."""
    return rules.questions.output[0] if asking_arms(wildcards.benchmark) else []


rule questions:
    input:
        data=task_data,
        weights=weights(),
        features=FEATURES,
        code=code("questions"),
    output:
        LAYOUT.questions(),
    benchmark:
        LAYOUT.time("questions", "{benchmark}", "{shard}")
    priority: PRIORITY.get("questions", 0)
    threads: model_threads()
    resources:
        **asked("questions"),
    params:
        asked=lambda wildcards: sorted(
            {each for arm in asking_arms(wildcards.benchmark) for each in arm.asked}
        ),
        text_tower=text_tower(),
        folder=str(STUDY_FOLDER),
    message:
        "Questions of {wildcards.benchmark}, {wildcards.shard}"
    script:
        "../scripts/questions.py"
