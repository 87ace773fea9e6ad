def described(wildcards):
    """The files that describe the methods of an ablation, plug-ins' too."""
    from prunesid.study.report.method_facts import about

    modules = [
        about(method).module for method in STUDY.ablation(wildcards.ablation).methods
    ]
    return here(path for name in modules for path in source_files(name))


def recorded(wildcards):
    """How many golden vectors each method equals."""
    from prunesid.study.report.fidelity import RECORDED

    return here([RECORDED])


def method_label(wildcards):
    """What the tables call a method."""
    rows = STUDY.ablation(wildcards.ablation).rows
    named = wildcards.method
    return unbraced(next(r.label for r in rows if r.as_dict().get("method") == named))


rule methods:
    input:
        comparison=LAYOUT.comparison(),
        strata=LAYOUT.ablation("strata.csv"),
        arms=LAYOUT.ablation("arms.csv"),
        agreement=LAYOUT.ablation("agreement.csv"),
        asked=asked("methods", ablation_asked),
        code=code("render"),
        golden=recorded,
        described=described,
    output:
        report(
            directory(LAYOUT.ablation("methods")),
            patterns=["{method}.html"],
            **shelf("Methods"),
            labels=lambda wildcards: {
                "method": method_label(wildcards),
                "ablation": titled(wildcards),
            },
            caption="../report/method.rst",
        ),
    localrule: True
    message:
        "Pages of the methods of {wildcards.ablation}"
    script:
        "../scripts/methods.py"


TARGETS += filled(
    rules.methods.output[0], ablation=[a.name for a in STUDY.ablations if a.methods]
)
