from prunesid.study.config.arm import shared_budgets

# Whether features are deleted once all arms that read them are done. Then a pass of its own over all images
# comes first, since budgets follow from the information of all images; the features of a part are made again
# when its turn has come, and a part goes through all stages before the next begins.
DROPPING = STUDY.features == "drop"
FEATURES = LAYOUT.features()
# Ranks of the stages that read features: those near the end go first.
PRIORITY = {"questions": 1, "encode": 1, "select": 2, "answer": 3} if DROPPING else {}


rule features:
    input:
        data=task_data,
        weights=weights(),
        code=code("features"),
    output:
        **({} if DROPPING else {"features": FEATURES}),
        head=LAYOUT.head(),
        information=LAYOUT.scores_of_images(),
    benchmark:
        LAYOUT.time("features", "{benchmark}", "{shard}")
    threads: model_threads()
    resources:
        **asked("features"),
    params:
        **({"skip_unreadable": True} if STUDY.skip_unreadable else {}),
        needs=lambda wildcards: needs_for(wildcards.benchmark),
        limit=STUDY.limit,
        runtime=(STUDY.dtype, STUDY.device, STUDY.batch_size),
        frames=STUDY.frames,
        # Only where it is asked for: without it, features are the same as ever.
        folder=str(STUDY_FOLDER),
    message:
        "Vision tower on {wildcards.benchmark}, {wildcards.shard}"
    script:
        "../scripts/features.py"


rule information:
    input:
        parts=parts_of(rules.features.output.information, STUDY.encoded),
        code=code("information"),
    output:
        LAYOUT.information,
    resources:
        **asked("information"),
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


if DROPPING:

    use rule features as features_again with:
        input:
            data=task_data,
            weights=weights(),
            budgets=rules.budgets.output[0],
            code=code("features"),
        output:
            features=temp(FEATURES),
        benchmark:
            LAYOUT.time("features_again", "{benchmark}", "{shard}")


TARGETS += [*rules.information.output, *rules.budgets.output]
