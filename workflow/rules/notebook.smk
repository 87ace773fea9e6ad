def notebook_parameters(wildcards):
    """The notebook's cell of parameters, for this study."""
    return {
        "folder": str(seen(LAYOUT.model)),
        "benchmarks": [b.name for b in STUDY.benchmarks],
        "ablations": [a.name for a in STUDY.ablations],
        "labels": STUDY.labels
        | {b.name: b.title for b in STUDY.benchmarks}
        | {a.name: a.title for a in STUDY.ablations},
        "questions": {
            b.name: str(seen(LAYOUT.data(b.task)))
            for b in STUDY.benchmarks
            if b.task in RENDERED
        },
    }


rule notebook:
    input:
        notebook=here([in_clone("notebooks", "first_questions.ipynb")])[0],
        data=[LAYOUT.data(b.task) for b in STUDY.benchmarks if b.task in RENDERED],
        scores=filled(
            rules.score.output.table, benchmark=[b.name for b in STUDY.benchmarks]
        ),
        comparisons=expand(LAYOUT.comparison(), ablation=ABLATIONS),
        information=rules.information.output[0],
        asked=asked("notebook", notebook_parameters),
        code=code("notebook"),
    output:
        executed=LAYOUT.notebook("first_questions.ipynb"),
        page=report(
            LAYOUT.notebook("first_questions.html"),
            **shelf("Notebook"),
            labels={"what": "First questions"},
            caption="../report/notebook.rst",
        ),
    localrule: True
    message:
        "Running the notebook"
    script:
        "../scripts/notebook.py"


TARGETS += [rules.notebook.output.page]
