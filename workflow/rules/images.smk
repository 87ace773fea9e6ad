rule images:
    input:
        code=code("images"),
    output:
        LAYOUT.data(),
    wildcard_constraints:
        task="|".join(RENDERED),
    localrule: True
    params:
        limit=STUDY.limit,
    message:
        "Rendering the images of {wildcards.task}"
    script:
        "../scripts/images.py"
