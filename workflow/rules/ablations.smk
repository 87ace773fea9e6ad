def score_tables(wildcards):
    """The scores of the benchmarks that an ablation is measured on."""
    chosen = STUDY.benchmarks_of(STUDY.ablation(wildcards.ablation))
    return expand(rules.score.output.table, benchmark=[b.name for b in chosen])


def selection_tables(wildcards):
    """Tables of what the arms kept, of the benchmarks that an ablation is measured on."""
    chosen = STUDY.benchmarks_of(STUDY.ablation(wildcards.ablation))
    return parts_of(rules.select.output[0], chosen)


def cost_tables(wildcards):
    """Tables of what the arms cost, of the benchmarks that an ablation is measured on."""
    chosen = STUDY.benchmarks_of(STUDY.ablation(wildcards.ablation))
    return expand(rules.account.output[0], benchmark=[b.name for b in chosen])


def ablation_text(wildcards):
    """The ablation's YAML as text; a change of it redoes its comparison and pictures."""
    return str(STUDY.ablation(wildcards.ablation))


rule compare:
    input:
        scores=score_tables,
        selections=selection_tables,
        costs=cost_tables,
        information=rules.information.output[0],
        code=code("compare"),
    output:
        comparison=LAYOUT.comparison(),
        arm_values=LAYOUT.ablation("arm_values.parquet"),
        pairs=LAYOUT.ablation("pairs.csv"),
        strata=LAYOUT.ablation("strata.csv"),
        arms=LAYOUT.ablation("arms.csv"),
        agreement=LAYOUT.ablation("agreement.csv"),
    params:
        ablation=ablation_text,
        bootstrap=str(STUDY.bootstrap),
        folder=str(STUDY_FOLDER),
    message:
        "Comparing the arms of {wildcards.ablation}"
    script:
        "../scripts/compare.py"


rule table:
    input:
        comparison=rules.compare.output.comparison,
        information=rules.information.output[0],
        arms=rules.compare.output.arms,
        agreement=rules.compare.output.agreement,
        paper=paper("results.csv", "notes.yaml"),
        code=code("render"),
    output:
        html=report(
            LAYOUT.ablation("table.html"),
            category="Ablations",
            subcategory="{ablation}",
            labels={"ablation": "{ablation}", "what": "table"},
            caption="../report/table.rst",
        ),
        csv=report(
            LAYOUT.ablation("table.csv"),
            category="Ablations",
            subcategory="{ablation}",
            labels={"ablation": "{ablation}", "what": "table (CSV)"},
            caption="../report/table.rst",
        ),
        markdown=LAYOUT.ablation("table.md"),
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
        comparison=rules.compare.output.comparison,
        information=rules.information.output[0],
        pairs=rules.compare.output.pairs,
        strata=rules.compare.output.strata,
        arms=rules.compare.output.arms,
        code=code("render"),
        plugins=plugin_sources(),
    output:
        svg=report(
            LAYOUT.ablation("{picture}.svg"),
            category="Ablations",
            subcategory="{ablation}",
            labels={"ablation": "{ablation}", "what": "{picture}"},
            caption="../report/figure.rst",
        ),
        pdf=LAYOUT.ablation("{picture}.pdf"),
        png=LAYOUT.ablation("{picture}.png"),
        csv=LAYOUT.ablation("{picture}.csv"),
    wildcard_constraints:
        picture="|".join(sorted({p for a in STUDY.ablations for p in a.figure.kinds})),
    params:
        ablation=ablation_text,
        bootstrap=str(STUDY.bootstrap),
        folder=str(STUDY_FOLDER),
    message:
        "Picture {wildcards.picture} of {wildcards.ablation}"
    script:
        "../scripts/figure.py"


PICTURES = [(a.name, picture) for a in STUDY.ablations for picture in a.figure.kinds]
TARGETS += expand(
    [rules.table.output.html, rules.compare.output.arms],
    ablation=[a.name for a in STUDY.ablations],
)
TARGETS += [
    path
    for ablation, picture in PICTURES
    for path in expand(rules.figure.output.svg, ablation=ablation, picture=picture)
]
