rule select:
    input:
        features=rules.features.output[0],
        code=sources(
            "record.py",
            "numerics.py",
            "seeding.py",
            "psca.py",
            "nms.py",
            "quotas.py",
            "information.py",
            "methods",
            "groupings",
            "scores",
            "stages/selection.py",
        ),
    output:
        MODEL / "{benchmark}" / "selections.json",
    benchmark:
        MODEL / "{benchmark}" / "times" / "select.tsv"
    params:
        arms=arm_names,
        store=STORE,
        folder=str(STUDY_FOLDER),
    message:
        "Selecting tokens on {wildcards.benchmark}"
    script:
        "../scripts/select.py"


rule answer:
    input:
        data=task_data,
        weights=weights(),
        features=rules.features.output[0],
        selections=rules.select.output[0],
        code=sources("answering", "models", "stages/answers.py"),
    output:
        MODEL / "{benchmark}" / "answers.json",
    benchmark:
        MODEL / "{benchmark}" / "times" / "answer.tsv"
    threads: model_threads()
    resources:
        gpu=1,
    params:
        arms=arm_names,
        store=STORE,
        folder=str(STUDY_FOLDER),
    message:
        "Answering {wildcards.benchmark}"
    script:
        "../scripts/answer.py"


rule score:
    input:
        data=task_data,
        answers=rules.answer.output[0],
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
