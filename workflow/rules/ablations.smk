def score_tables(wildcards):
    """The scores of the benchmarks that an ablation is measured on."""
    chosen = STUDY.benchmarks_of(STUDY.ablation(wildcards.ablation))
    return expand(rules.score.output.table, benchmark=[b.name for b in chosen])


def selection_tables(wildcards):
    """What the arms kept on the benchmarks that an ablation is measured on."""
    chosen = STUDY.benchmarks_of(STUDY.ablation(wildcards.ablation))
    return expand(rules.select.output[0], benchmark=[b.name for b in chosen])


def ablation_text(wildcards):
    """What the ablation's YAML says; a change of it redoes its comparison and pictures."""
    return str(STUDY.ablation(wildcards.ablation))


rule compare:
    input:
        scores=score_tables,
        code=sources(
            "study/comparison.py",
            "study/measurement.py",
            "study/metrics.py",
            "study/statistics.py",
            "study/power.py",
        ),
    output:
        MODEL / "ablations" / "{ablation}" / "comparison.csv",
    params:
        ablation=ablation_text,
        bootstrap=str(STUDY.bootstrap),
        folder=str(STUDY_FOLDER),
    message:
        "Comparing the arms of {wildcards.ablation}"
    script:
        "../scripts/compare.py"


rule arms:
    input:
        selections=selection_tables,
        information=rules.information.output[0],
        code=sources("stages/arms.py", "study/agreement.py"),
    output:
        arms=MODEL / "ablations" / "{ablation}" / "arms.csv",
        agreement=MODEL / "ablations" / "{ablation}" / "agreement.csv",
    params:
        ablation=ablation_text,
        store=STORE,
        folder=str(STUDY_FOLDER),
    message:
        "What the arms of {wildcards.ablation} did with the tokens"
    script:
        "../scripts/arms.py"


rule table:
    input:
        comparison=rules.compare.output[0],
        information=rules.information.output[0],
        arms=rules.arms.output.arms,
        agreement=rules.arms.output.agreement,
        paper=paper("results.csv", "notes.yaml"),
        code=sources("render", "study/association.py"),
    output:
        html=report(
            MODEL / "ablations" / "{ablation}" / "table.html",
            category="Ablations",
            subcategory="{ablation}",
            labels={"ablation": "{ablation}", "what": "table"},
            caption="../report/table.rst",
        ),
        csv=report(
            MODEL / "ablations" / "{ablation}" / "table.csv",
            category="Ablations",
            subcategory="{ablation}",
            labels={"ablation": "{ablation}", "what": "table (CSV)"},
            caption="../report/table.rst",
        ),
        markdown=MODEL / "ablations" / "{ablation}" / "table.md",
    params:
        ablation=ablation_text,
        bootstrap=str(STUDY.bootstrap),
        folder=str(STUDY_FOLDER),
    message:
        "Table of {wildcards.ablation}"
    script:
        "../scripts/table.py"


rule figure:
    input:
        comparison=rules.compare.output[0],
        information=rules.information.output[0],
        code=sources("render", "study/association.py"),
        plugins=plugin_sources(),
    output:
        svg=report(
            MODEL / "ablations" / "{ablation}" / "figure.svg",
            category="Ablations",
            subcategory="{ablation}",
            labels={"ablation": "{ablation}", "what": "figure"},
            caption="../report/figure.rst",
        ),
        pdf=MODEL / "ablations" / "{ablation}" / "figure.pdf",
        png=MODEL / "ablations" / "{ablation}" / "figure.png",
        csv=MODEL / "ablations" / "{ablation}" / "figure.csv",
    params:
        ablation=ablation_text,
        bootstrap=str(STUDY.bootstrap),
        folder=str(STUDY_FOLDER),
    message:
        "Figure of {wildcards.ablation}"
    script:
        "../scripts/figure.py"


TARGETS += expand(
    [rules.table.output.html, rules.figure.output.svg, rules.arms.output.arms],
    ablation=[a.name for a in STUDY.ablations],
)
