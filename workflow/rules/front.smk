# The first page, of one model or of several chapters. It comes last, so that it links all that is there.
RESULTS = STUDIES[0].results


def asked_of_front(wildcards):
    """A file that says which study the page is of: its files, and what else was given."""
    path = RESULTS / "asked.json"
    asked = {
        "files": [str(file) for file in workflow.configfiles],
        "given": workflow.config_settings.config,
        "titles": [TITLE, *(study.title for study in STUDIES)],
        "travel": TRAVELED,
    }
    write_changed(path, json.dumps(asked, indent=1) + "\n")
    return path


rule front:
    input:
        shown=list(TARGETS),
        paper=[
            os.path.relpath(in_clone("configs", "paper", name))
            for name in ("results.csv", "notes.yaml")
        ],
        asked=asked_of_front,
        code=[os.path.relpath(path) for path in stage_files("front").values()],
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
