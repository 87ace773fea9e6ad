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


def kept(benchmarks, parts=SHARDS):
    """The folders of entries of what the arms of benchmarks keep, those that act in the encoder among them."""
    encoding = [b for b in benchmarks if encoder_arms(b.name)]
    selected = parts_of(rules.select.output[0], benchmarks, parts)
    return entries(selected + parts_of(rules.encode.output[0], encoding, parts))


def answered(benchmark):
    """The folders of entries of the answers on all parts of a benchmark."""
    return entries(parts_of(rules.answer.output[0], [STUDY.benchmark(benchmark)]))


rule select:
    input:
        features=FEATURES,
        budgets=budgets_of,
        encoded=encoded_of,
        questions=questions_of,
        asked=asked("select", arms_asked),
        code=code("select"),
        earlier=earlier(LAYOUT.keys("selections")),
    output:
        LAYOUT.keys("selections"),
        **stored(LAYOUT.keys("selections")),
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
        stores=lambda wildcards: kept(
            [STUDY.benchmark(wildcards.benchmark)], [wildcards.shard]
        ),
        earlier=earlier(LAYOUT.keys("answers")),
    output:
        LAYOUT.keys("answers"),
        **stored(LAYOUT.keys("answers")),
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


# Each arm's results lie in the store; a file that is missing or damaged is made again. Features are not checked here,
# because they are large: a job that reads them checks them first.
TABLES = [
    *parts_of(
        rules.encode.output[0], [b for b in STUDY.benchmarks if encoder_arms(b.name)]
    ),
    *parts_of(rules.select.output[0], STUDY.benchmarks),
    *parts_of(rules.answer.output[0], STUDY.benchmarks),
]
TARGETS += TABLES
if workflow.is_main_process and not STAGED:
    checksums = Checksums(LAYOUT.checksums)
    for folder in {LAYOUT.model, LAYOUT.data().parent, LAYOUT.store}:
        sweep(folder)
        for dropped in drop_damaged_files(folder, [FEATURES.name], checksums):
            logger.warning(f"{dropped} was damaged; making it again")
    for dropped in drop_damaged(map(Path, TABLES), Store(LAYOUT.store, checksums)):
        logger.warning(
            f"{dropped} named damaged entries of the store; computing them again"
        )
    checksums.save()


rule score:
    input:
        data=task_data,
        heads=filled(rules.features.output.head, shard=SHARDS, allow_missing=True),
        answers=filled(rules.answer.output[0], shard=SHARDS, allow_missing=True),
        asked=asked("score", scores_asked),
        code=code("score"),
        costs_code=code("account"),
        stores=lambda wildcards: answered(wildcards.benchmark),
        earlier=earlier(LAYOUT.scores()),
    output:
        **stored(LAYOUT.scores()),
        table=LAYOUT.scores(),
        metrics=LAYOUT.metrics(),
        costs=LAYOUT.costs(),
    benchmark:
        LAYOUT.time("score", "{benchmark}")
    resources:
        **resources_of("score"),
    message:
        "Scoring {wildcards.benchmark} by lmms-eval, and counting costs"
    script:
        "../scripts/score.py"


TARGETS += filled(
    rules.score.output.table, benchmark=[b.name for b in STUDY.benchmarks]
)
