def budgets_of(wildcards):
    """The budgets of the images, where an arm of the benchmark shares its budget out among them."""
    arms = STUDY.arms_of(wildcards.benchmark)
    return rules.budgets.output[0] if any(arm.dynamic for arm in arms) else []


rule select:
    input:
        features=rules.features.output[0],
        budgets=budgets_of,
        encoded=encoded_of,
        questions=questions_of,
        code=sources(
            "asking.py",
            "record.py",
            "records.py",
            "numerics.py",
            "seeding.py",
            "psca.py",
            "nms.py",
            "quotas.py",
            "information.py",
            "parameters.py",
            "methods/__init__.py",
            "methods/greedy_map.py",
            "methods/ragged.py",
            "groupings/__init__.py",
            "scores/__init__.py",
            "scores/cls_attention.py",
            "stages/budgets.py",
            "stages/selection.py",
        ),
        arms=arm_sources,
    output:
        MODEL / "{benchmark}" / "{shard}" / "selections.json",
    benchmark:
        MODEL / "{benchmark}" / "{shard}" / "times" / "select.tsv"
    resources:
        mem_mb=reads_whole,
    params:
        arms=arm_names,
        store=STORE,
        folder=str(STUDY_FOLDER),
    message:
        "Selecting tokens on {wildcards.benchmark}, {wildcards.shard}"
    script:
        "../scripts/select.py"


rule answer:
    input:
        data=task_data,
        weights=weights(),
        features=rules.features.output[0],
        selections=rules.select.output[0],
        questions=questions_of,
        code=sources(
            "answering",
            "asking.py",
            "late",
            "numerics.py",
            "models",
            "stages/answers.py",
        ),
        late=late_sources,
    output:
        MODEL / "{benchmark}" / "{shard}" / "answers.json",
    benchmark:
        MODEL / "{benchmark}" / "{shard}" / "times" / "answer.tsv"
    threads: model_threads()
    resources:
        gpu=1,
        mem_mb=reads_whole,
    params:
        arms=arm_names,
        store=STORE,
        folder=str(STUDY_FOLDER),
    message:
        "Answering {wildcards.benchmark}, {wildcards.shard}"
    script:
        "../scripts/answer.py"


rule account:
    input:
        features=expand(rules.features.output[0], shard=SHARDS, allow_missing=True),
        answers=expand(rules.answer.output[0], shard=SHARDS, allow_missing=True),
        code=sources(
            "accounting.py",
            "box.py",
            "encoding/plan.py",
            "outline.py",
            "psca.py",
            "methods/__init__.py",
            "stages/accounts.py",
            "stages/passes.py",
        ),
        arms=arm_sources,
        encoders=encoder_sources,
    output:
        MODEL / "{benchmark}" / "accounts.csv",
    params:
        arms=arm_names,
        store=STORE,
        folder=str(STUDY_FOLDER),
    message:
        "Counting what the arms cost on {wildcards.benchmark}"
    script:
        "../scripts/accounts.py"


rule score:
    input:
        data=task_data,
        answers=expand(rules.answer.output[0], shard=SHARDS, allow_missing=True),
        code=sources("evaluation", "stages/scores.py"),
    output:
        table=MODEL / "{benchmark}" / "scores.parquet",
        metrics=MODEL / "{benchmark}" / "scores.json",
    benchmark:
        MODEL / "{benchmark}" / "times" / "score.tsv"
    params:
        arms=arm_names,
        store=STORE,
        folder=str(STUDY_FOLDER),
    message:
        "Scoring {wildcards.benchmark} by lmms-eval"
    script:
        "../scripts/score.py"
