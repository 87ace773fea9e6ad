rule images:
    input:
        asked=asked("images", lambda wildcards: STUDY.limit),
        code=code("images"),
    output:
        LAYOUT.data(),
    wildcard_constraints:
        task="|".join(RENDERED),
    localrule: True
    message:
        "Rendering the images of {wildcards.task}"
    script:
        "../scripts/images.py"
