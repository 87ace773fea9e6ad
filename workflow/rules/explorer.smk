from prunesid import study as study_package


def explorer_asked(wildcards):
    return {
        "title": STUDY.title,
        "ablations": [str(ablation) for ablation in STUDY.ablations],
        "benchmarks": [str(b) for b in STUDY.benchmarks],
        "confidence": STUDY.bootstrap.confidence,
    }


def explorer_page(wildcards):
    """The page itself, and the charts' library."""
    folder = Path(study_package.__file__).parent / "explorer" / "page"
    return here(sorted(path for path in folder.rglob("*") if path.is_file()))


rule explorer:
    input:
        data=[LAYOUT.data(b.task) for b in STUDY.benchmarks if b.task in RENDERED],
        heads=parts_of(rules.features.output.head, STUDY.benchmarks),
        selections=parts_of(rules.select.output[0], STUDY.benchmarks),
        answers=parts_of(rules.answer.output[0], STUDY.benchmarks),
        stores=[
            *kept(STUDY.benchmarks),
            *(each for b in STUDY.benchmarks for each in answered(b.name)),
        ],
        scores=filled(
            rules.score.output.table, benchmark=[b.name for b in STUDY.benchmarks]
        ),
        costs=filled(
            rules.score.output.costs, benchmark=[b.name for b in STUDY.benchmarks]
        ),
        information=rules.information.output[0],
        comparisons=expand(LAYOUT.comparison(), ablation=ABLATIONS),
        latency=filled(rules.latency.output.latency, ablation=CLOCKED),
        page=explorer_page,
        asked=asked("explorer", explorer_asked),
        code=code("explorer"),
    output:
        directory(LAYOUT.explorer),
    localrule: True
    message:
        "Explorer: images, kept patches and answers on one page"
    script:
        "../scripts/explorer.py"


TARGETS += rules.explorer.output
