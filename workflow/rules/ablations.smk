def score_tables(wildcards):
    """The scores of the benchmarks that an ablation is measured on."""
    chosen = STUDY.benchmarks_of(STUDY.ablation(wildcards.ablation))
    return filled(rules.score.output.table, benchmark=[b.name for b in chosen])


def selection_tables(wildcards):
    """Tables of what the arms kept, of the benchmarks that an ablation is measured on."""
    chosen = STUDY.benchmarks_of(STUDY.ablation(wildcards.ablation))
    return parts_of(rules.select.output[0], chosen)


def selection_entries(wildcards):
    """The folders of entries that these tables name."""
    return kept(STUDY.benchmarks_of(STUDY.ablation(wildcards.ablation)))


def cost_tables(wildcards):
    """Tables of what the arms cost, of the benchmarks that an ablation is measured on."""
    chosen = STUDY.benchmarks_of(STUDY.ablation(wildcards.ablation))
    return filled(rules.score.output.costs, benchmark=[b.name for b in chosen])


def ablation_asked(wildcards):
    """The ablation, its benchmarks and the statistics as text: a change redoes all that is shown of it."""
    ablation = STUDY.ablation(wildcards.ablation)
    return {
        "ablation": str(ablation),
        "benchmarks": [str(b) for b in STUDY.benchmarks_of(ablation)],
        "bootstrap": str(STUDY.bootstrap),
    }


def titled(wildcards):
    """What a reader knows an ablation by."""
    return unbraced(place_and_title(STUDY.ablation(wildcards.ablation)))


def reported(file, what, caption):
    """A file of an ablation that its report shows."""
    return report(
        LAYOUT.ablation(file),
        **shelf("Ablations", titled),
        labels=lambda wildcards: {
            "ablation": titled(wildcards),
            "what": PICTURES.get(what, what),
        },
        caption=f"../report/{caption}.rst",
    )


def picture(name, caption="figure"):
    """The files of a picture, its numbers among them."""
    others = [LAYOUT.ablation(f"{name}.{suffix}") for suffix in ("pdf", "png", "csv")]
    return [reported(f"{name}.svg", name, caption), *others]


# One rule, and so one process, makes all that is shown of an ablation, since imports take longer than the work.
# Each ablation has a rule of its own, because its pictures depend on it.
ABLATIONS = [a.name for a in STUDY.ablations]
SHOWN = []
for each in STUDY.ablations:

    rule:
        name:
            f"ablation_{each.name}"
        input:
            scores=score_tables,
            selections=selection_tables,
            costs=cost_tables,
            information=rules.information.output[0],
            paper=paper("results.csv", "notes.yaml"),
            plugins=plugin_sources(),
            stores=selection_entries,
            asked=asked("compare", ablation_asked),
            compare=code("compare"),
            render=code("render"),
        output:
            comparison=LAYOUT.comparison(),
            arm_values=LAYOUT.ablation("arm_values.parquet"),
            pairs=LAYOUT.ablation("pairs.csv"),
            strata=LAYOUT.ablation("strata.csv"),
            arms=LAYOUT.ablation("arms.csv"),
            agreement=LAYOUT.ablation("agreement.csv"),
            # The text that the report shows beside the table and pictures.
            summary=LAYOUT.ablation("summary.html"),
            table=[
                reported("table.html", "table", "table"),
                reported("table.csv", "table (CSV)", "table"),
                LAYOUT.ablation("table.md"),
                LAYOUT.ablation("table.tex"),
            ],
            pictures=[file for name in each.figure.kinds for file in picture(name)],
        wildcard_constraints:
            ablation=each.name,
        resources:
            **resources_of("compare"),
        message:
            "Comparison, table and pictures of {wildcards.ablation}"
        script:
            "../scripts/ablation.py"

    made = getattr(rules, f"ablation_{each.name}").output
    SHOWN += filled(made, ablation=each.name)


TARGETS += SHOWN
