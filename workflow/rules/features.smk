from prunesid.study.config.arm import shared_budgets

# Whether features are deleted once all arms that read them are done. If so, a separate pass over all images comes
# first, since budgets follow from the information of all images. Then one part at a time is encoded again and goes
# through all stages before the next part begins.
DROPPING = STUDY.features == "drop"
FEATURES = LAYOUT.features()
# Priorities of the stages that read features: later stages go first.
PRIORITY = {"select": 1, "answer": 2} if DROPPING else {}


def encoded_for(wildcards):
    """What the vision tower has to keep, and how it runs."""
    from prunesid.study.stages.needs import needs_of, needs_text

    arms = STUDY.arms_of(wildcards.benchmark)
    return {
        "needs": needs_text(needs_of(arms), text_tower()),
        "limit": STUDY.limit,
        "runtime": [STUDY.dtype, STUDY.device, STUDY.batch_size],
        "options": dict(STUDY.model_options),
        "frames": STUDY.frames,
        "skip_unreadable": STUDY.skip_unreadable,
    }


def budgets_asked(wildcards):
    """The rules and budgets by which each benchmark shares tokens out among its images."""
    shared = {b.name: shared_budgets(STUDY.arms_of(b.name)) for b in STUDY.benchmarks}
    return {
        "wanted": shared,
        "calibration": STUDY.calibration and STUDY.calibration.name,
    }


encoding_asked = asked("features", encoded_for)


rule features:
    input:
        data=task_data,
        weights=weights(),
        asked=encoding_asked,
        code=code("features"),
    output:
        **({} if DROPPING else {"features": FEATURES}),
        head=LAYOUT.head(),
        information=LAYOUT.scores_of_images(),
    benchmark:
        LAYOUT.time("features", "{benchmark}", "{shard}")
    threads: model_threads()
    resources:
        **resources_of("features"),
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
        **resources_of("information"),
    message:
        "Information scores of all images"
    script:
        "../scripts/information.py"


rule budgets:
    input:
        information=rules.information.output[0],
        asked=asked("budgets", budgets_asked),
        code=code("budgets"),
    output:
        LAYOUT.budgets,
    localrule: True
    message:
        "Token budgets of the images"
    script:
        "../scripts/budgets.py"


if DROPPING:

    use rule features as features_again with:
        input:
            data=task_data,
            weights=weights(),
            asked=encoding_asked,
            budgets=rules.budgets.output[0],
            code=code("features"),
        output:
            features=temp(FEATURES),
        benchmark:
            LAYOUT.time("features_again", "{benchmark}", "{shard}")


TARGETS += [*rules.information.output, *rules.budgets.output]
