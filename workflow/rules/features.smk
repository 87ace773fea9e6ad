from prunesid.study.config.arm import shared_budgets


rule features:
    input:
        data=task_data,
        weights=weights(),
        code=code("features"),
    output:
        LAYOUT.features(),
    benchmark:
        LAYOUT.time("features", "{benchmark}", "{shard}")
    threads: model_threads()
    resources:
        **asked("features"),
    params:
        needs=lambda wildcards: needs_for(wildcards.benchmark),
        limit=STUDY.limit,
        runtime=(STUDY.dtype, STUDY.device, STUDY.batch_size),
        frames=STUDY.frames,
        folder=str(STUDY_FOLDER),
    message:
        "Vision tower on {wildcards.benchmark}, {wildcards.shard}"
    script:
        "../scripts/features.py"


rule information:
    input:
        features=parts_of(rules.features.output[0], STUDY.encoded),
        code=code("information"),
    output:
        LAYOUT.information,
    benchmark:
        LAYOUT.time("information")
    resources:
        **asked("information"),
    params:
        benchmarks=[b.name for b in STUDY.encoded],
    message:
        "Information scores of all images"
    script:
        "../scripts/information.py"


rule budgets:
    input:
        information=rules.information.output[0],
        code=code("budgets"),
    output:
        LAYOUT.budgets,
    localrule: True
    params:
        wanted={b.name: shared_budgets(STUDY.arms_of(b.name)) for b in STUDY.benchmarks},
        calibration=STUDY.calibration and STUDY.calibration.name,
    message:
        "Token budgets of the images"
    script:
        "../scripts/budgets.py"


TARGETS += [*rules.information.output, *rules.budgets.output]
