PAGES = [(a.name, method) for a in STUDY.ablations for method in a.methods]


def method_sources(wildcards):
    """The files that describe a method, a plug-in's too."""
    from prunesid.study.methods import about

    return here(source_files(about(wildcards.method).module))


rule method:
    input:
        comparison=rules.compare.output.comparison,
        strata=rules.compare.output.strata,
        arms=rules.compare.output.arms,
        agreement=rules.compare.output.agreement,
        code=sources("render", "study/methods.py"),
        described=method_sources,
    output:
        html=report(
            MODEL / "ablations" / "{ablation}" / "methods" / "{method}.html",
            category="Methods",
            labels={"method": "{method}", "ablation": "{ablation}"},
            caption="../report/method.rst",
        ),
        markdown=MODEL / "ablations" / "{ablation}" / "methods" / "{method}.md",
        svg=MODEL / "ablations" / "{ablation}" / "methods" / "{method}.svg",
        png=MODEL / "ablations" / "{ablation}" / "methods" / "{method}.png",
        csv=MODEL / "ablations" / "{ablation}" / "methods" / "{method}.csv",
    wildcard_constraints:
        method="|".join(sorted({method for _, method in PAGES})),
    params:
        ablation=ablation_text,
        bootstrap=str(STUDY.bootstrap),
        folder=str(STUDY_FOLDER),
    message:
        "Page of {wildcards.method} in {wildcards.ablation}"
    script:
        "../scripts/method.py"


TARGETS += [
    path
    for ablation, method in PAGES
    for path in expand(rules.method.output.html, ablation=ablation, method=method)
]
