# The first page, of one model or of several chapters. It comes last, so that it links all that is there.
from prunesid.study.provenance.seals import drop_damaged_outputs

RESULTS = STUDIES[0].results
if workflow.is_main_process and not STAGED:
    for dropped in drop_damaged_outputs(RESULTS / "index.html"):
        logger.warning(f"{dropped} was damaged; making it again")


rule front:
    input:
        shown=list(TARGETS),
        paper=[
            local(os.path.relpath(in_clone("configs", "paper", name)))
            for name in ("results.csv", "notes.yaml")
        ],
        asked=whole_asked(
            "front",
            title=WHOLE.title if "chapters" in config else STUDY.title,
            traveled=TRAVELED is not None,
            staged=STAGED,
        ),
        code=[local(os.path.relpath(path)) for path in stage_files("front").values()],
    output:
        page=RESULTS / "index.html",
        # The same for the start of Snakemake's report.
        start=RESULTS / "start.html",
    localrule: True
    message:
        "The first page"
    script:
        "../scripts/front.py"


TARGETS += [rules.front.output.page, rules.front.output.start]
