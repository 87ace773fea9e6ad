def patches_data(wildcards):
    """The file of the images that the picture of kept patches shows, where we render it."""
    task = STUDY.benchmark(STUDY.patches.benchmark).task
    return LAYOUT.data(task) if task in RENDERED else []


def histogram_asked(wildcards):
    return {
        "benchmarks": [b.title for b in STUDY.benchmarks],
        "bootstrap": str(STUDY.bootstrap),
    }


rule histogram:
    input:
        information=rules.information.output[0],
        asked=asked("histogram", histogram_asked),
        code=code("render"),
    output:
        svg=report(
            LAYOUT.figure("information.svg"),
            **shelf("Images"),
            labels={"what": "information scores"},
            caption="../report/information.rst",
        ),
        pdf=LAYOUT.figure("information.pdf"),
        png=LAYOUT.figure("information.png"),
        csv=LAYOUT.figure("information.csv"),
    localrule: True
    message:
        "Histograms of the information scores"
    script:
        "../scripts/histogram.py"


rule patches:
    input:
        data=patches_data,
        heads=parts_of(
            rules.features.output.head, [STUDY.benchmark(STUDY.patches.benchmark)]
        ),
        information=rules.information.output[0],
        selections=parts_of(
            rules.select.output[0], [STUDY.benchmark(STUDY.patches.benchmark)]
        ),
        stores=kept([STUDY.benchmark(STUDY.patches.benchmark)]),
        asked=asked("patches", lambda wildcards: str(STUDY.patches)),
        code=code("patches"),
    output:
        png=report(
            LAYOUT.figure("patches.png"),
            **shelf("Images"),
            labels={"what": "kept patches"},
            caption="../report/patches.rst",
        ),
        pdf=LAYOUT.figure("patches.pdf"),
        svg=LAYOUT.figure("patches.svg"),
        csv=LAYOUT.figure("patches.csv"),
    localrule: True
    message:
        "Which patches the arms keep"
    script:
        "../scripts/patches.py"


TARGETS += [rules.histogram.output.svg, rules.patches.output.png]
