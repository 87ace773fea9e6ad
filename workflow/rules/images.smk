rule images:
    input:
        code=sources(
            "pocket/benchmarks.py",
            "pocket/questions.py",
            "pocket/scenes.py",
            "pocket/drawing.py",
            "pocket/vocabulary.py",
        ),
    output:
        RESULTS / "pocket" / "data" / "{task}.parquet",
    wildcard_constraints:
        task="|".join(RENDERED),
    params:
        limit=STUDY.limit,
    message:
        "Rendering the images of {wildcards.task}"
    script:
        "../scripts/images.py"
