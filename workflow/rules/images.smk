rule images:
    input:
        asked=asked("images", lambda wildcards: STUDY.limit),
        code=code("images"),
    output:
        LAYOUT.data(),
    wildcard_constraints:
        # "-" is no task's name: it stands for none.
        task="|".join(PLACE["renders"]) or "-",
    localrule: True
    message:
        "Rendering the images of {wildcards.task}"
    script:
        "../scripts/images.py"
