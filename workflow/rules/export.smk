# All results, question by question, in the shared schema Every Eval Ever: `snakemake export`. The study does not run it
# by default, since it repeats every answer, some 700 bytes each.
def export_asked(wildcards):
    return {
        "title": STUDY.title,
        "organization": STUDY.wandb.entity,
        "bootstrap": str(STUDY.bootstrap),
        "benchmarks": [str(b) for b in STUDY.benchmarks],
        "arms": {
            b.name: [str(arm) for arm in STUDY.arms_of(b.name)]
            for b in STUDY.benchmarks
        },
    }


rule export:
    input:
        scores=filled(
            rules.score.output.table, benchmark=[b.name for b in STUDY.benchmarks]
        ),
        metrics=filled(
            rules.score.output.metrics, benchmark=[b.name for b in STUDY.benchmarks]
        ),
        asked=asked("export", export_asked),
        code=code("export"),
    output:
        directory(LAYOUT.exported),
    localrule: True
    message:
        "Results in the schema of Every Eval Ever"
    script:
        "../scripts/export.py"
