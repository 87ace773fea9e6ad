def budgets_of(wildcards):
    """The budgets of the images, where an arm of the benchmark shares its budget out among them."""
    arms = STUDY.arms_of(wildcards.benchmark)
    return rules.budgets.output[0] if any(arm.dynamic for arm in arms) else []


rule select:
    input:
        features=FEATURES,
        budgets=budgets_of,
        encoded=encoded_of,
        questions=questions_of,
        code=code("select"),
    output:
        LAYOUT.keys("selections"),
    benchmark:
        LAYOUT.time("select", "{benchmark}", "{shard}")
    priority: PRIORITY.get("select", 0)
    resources:
        **asked("select"),
    params:
        arms=arm_names,
        folder=str(STUDY_FOLDER),
    message:
        "Selecting tokens on {wildcards.benchmark}, {wildcards.shard}"
    script:
        "../scripts/select.py"


rule answer:
    input:
        data=task_data,
        weights=weights(),
        features=FEATURES,
        selections=rules.select.output[0],
        questions=questions_of,
        code=code("answer"),
    output:
        LAYOUT.keys("answers"),
    benchmark:
        LAYOUT.time("answer", "{benchmark}", "{shard}")
    priority: PRIORITY.get("answer", 0)
    threads: model_threads()
    resources:
        **asked("answer"),
    params:
        arms=arm_names,
        folder=str(STUDY_FOLDER),
    message:
        "Answering {wildcards.benchmark}, {wildcards.shard}"
    script:
        "../scripts/answer.py"


# Each arm's results lie in the store; a table that is gone, for whatever reason, is made again.
TABLES = [
    *parts_of(
        rules.encode.output[0], [b for b in STUDY.benchmarks if encoder_arms(b.name)]
    ),
    *parts_of(rules.select.output[0], STUDY.benchmarks),
    *parts_of(rules.answer.output[0], STUDY.benchmarks),
]
TARGETS += TABLES
if workflow.is_main_process:
    for dropped in drop_damaged(map(Path, TABLES), Store(LAYOUT.store)):
        logger.warning(
            f"{dropped} named damaged entries of the store; computing them again"
        )


rule account:
    input:
        heads=expand(rules.features.output.head, shard=SHARDS, allow_missing=True),
        answers=expand(rules.answer.output[0], shard=SHARDS, allow_missing=True),
        code=code("account"),
    output:
        LAYOUT.costs(),
    resources:
        **asked("account", like="score"),
    params:
        arms=arm_names,
        folder=str(STUDY_FOLDER),
    message:
        "Counting what the arms cost on {wildcards.benchmark}"
    script:
        "../scripts/costs.py"


rule score:
    input:
        data=task_data,
        heads=expand(rules.features.output.head, shard=SHARDS, allow_missing=True),
        answers=expand(rules.answer.output[0], shard=SHARDS, allow_missing=True),
        code=code("score"),
    output:
        table=LAYOUT.scores(),
        metrics=LAYOUT.metrics(),
    benchmark:
        LAYOUT.time("score", "{benchmark}")
    resources:
        **asked("score"),
    params:
        arms=arm_names,
        folder=str(STUDY_FOLDER),
    message:
        "Scoring {wildcards.benchmark} by lmms-eval"
    script:
        "../scripts/score.py"
