def budgets_of(wildcards):
    """The budgets of the images, where an arm of the benchmark shares its budget out among them."""
    arms = STUDY.arms_of(wildcards.benchmark)
    return rules.budgets.output[0] if any(arm.dynamic for arm in arms) else []


def arms_asked(wildcards):
    return [str(arm) for arm in STUDY.arms_of(wildcards.benchmark)]


def scores_asked(wildcards):
    """The arms, and what lmms-eval is to give of their answers."""
    metric = STUDY.benchmark(wildcards.benchmark).metric
    return {"metric": metric, "arms": arms_asked(wildcards)}


rule select:
    input:
        features=FEATURES,
        budgets=budgets_of,
        encoded=encoded_of,
        questions=questions_of,
        asked=asked("select", arms_asked),
        code=code("select"),
    output:
        LAYOUT.keys("selections"),
    benchmark:
        LAYOUT.time("select", "{benchmark}", "{shard}")
    priority: PRIORITY.get("select", 0)
    resources:
        **resources_of("select"),
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
        asked=asked("answer", arms_asked),
        code=code("answer"),
    output:
        LAYOUT.keys("answers"),
    benchmark:
        LAYOUT.time("answer", "{benchmark}", "{shard}")
    priority: PRIORITY.get("answer", 0)
    threads: model_threads()
    resources:
        **resources_of("answer"),
    message:
        "Answering {wildcards.benchmark}, {wildcards.shard}"
    script:
        "../scripts/answer.py"


# Each arm's results lie in the store; a file that is gone, for whatever reason, is made again. Features are large:
# who reads them looks at them first.
TABLES = [
    *parts_of(
        rules.encode.output[0], [b for b in STUDY.benchmarks if encoder_arms(b.name)]
    ),
    *parts_of(rules.select.output[0], STUDY.benchmarks),
    *parts_of(rules.answer.output[0], STUDY.benchmarks),
]
TARGETS += TABLES
if workflow.is_main_process:
    for folder in {LAYOUT.model, LAYOUT.data().parent, LAYOUT.store}:
        sweep(folder)
        for dropped in drop_damaged_files(folder, [FEATURES.name]):
            logger.warning(f"{dropped} was damaged; making it again")
    for dropped in drop_damaged(map(Path, TABLES), Store(LAYOUT.store)):
        logger.warning(
            f"{dropped} named damaged entries of the store; computing them again"
        )


rule account:
    input:
        heads=expand(rules.features.output.head, shard=SHARDS, allow_missing=True),
        answers=expand(rules.answer.output[0], shard=SHARDS, allow_missing=True),
        asked=asked("account", arms_asked),
        code=code("account"),
    output:
        LAYOUT.costs(),
    resources:
        **resources_of("account", like="score"),
    message:
        "Counting what the arms cost on {wildcards.benchmark}"
    script:
        "../scripts/costs.py"


rule score:
    input:
        data=task_data,
        heads=expand(rules.features.output.head, shard=SHARDS, allow_missing=True),
        answers=expand(rules.answer.output[0], shard=SHARDS, allow_missing=True),
        asked=asked("score", scores_asked),
        code=code("score"),
    output:
        table=LAYOUT.scores(),
        metrics=LAYOUT.metrics(),
    benchmark:
        LAYOUT.time("score", "{benchmark}")
    resources:
        **resources_of("score"),
    message:
        "Scoring {wildcards.benchmark} by lmms-eval"
    script:
        "../scripts/score.py"
