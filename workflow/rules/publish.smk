def publishing_asked(wildcards):
    return {"wandb": str(STUDY.wandb), "trackio": STUDY.trackio}


rule publish:
    input:
        data=[LAYOUT.data(b.task) for b in STUDY.benchmarks if b.task in RENDERED],
        heads=parts_of(rules.features.output.head, STUDY.benchmarks),
        selections=parts_of(rules.select.output[0], STUDY.benchmarks),
        stores=kept(STUDY.benchmarks),
        scores=filled(
            rules.score.output.table, benchmark=[b.name for b in STUDY.benchmarks]
        ),
        information=rules.information.output[0],
        comparisons=expand(LAYOUT.comparison(), ablation=ABLATIONS),
        shown=SHOWN,
        latency=filled(rules.latency.output, ablation=CLOCKED),
        asked=asked("publish", publishing_asked),
        code=code("publish"),
    output:
        LAYOUT.published,
    localrule: True
    message:
        "Publishing runs"
    script:
        "../scripts/publish.py"


TARGETS += rules.publish.output
