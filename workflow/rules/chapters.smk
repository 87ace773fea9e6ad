# A study of several models: every chapter is this workflow as a module, with the study of one model.
import os
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.logging import logger

from prunesid.pocket.benchmarks import BENCHMARKS
from prunesid.study.clone import in_clone
from prunesid.study.config.chapters import read_whole, rendered_by
from prunesid.study.config.documents import ConfigError
from prunesid.study.layout import Layout
from prunesid.study.provenance.code import stage_files
from prunesid.study.provenance.seals import drop_damaged_files
from prunesid.study.report.closing import closing

if not workflow.configfiles:
    raise WorkflowError("chapters are named in a study's file; give it by --configfile")
try:
    WHOLE = read_whole(
        [Path(path) for path in workflow.configfiles], workflow.config_settings.config
    )
except ConfigError as error:
    # Exit without Snakemake's mention of a line of this file: the error is in the study's file.
    raise SystemExit(str(error)) from None

STUDIES = WHOLE.studies
RENDERS = rendered_by(WHOLE.chapters, list(BENCHMARKS))
for each in WHOLE.chapters:
    # Names for `use rule`: that of the module, which no other name in the workflow may equal, and the prefix of its
    # rules.
    chapter = f"chapter_{each.name}"
    prefix = f"{each.name}_"

    module:
        name: chapter
        snakefile:
            "../../Snakefile"
        config:
            {
                **each.document.value,
                "place": {
                    "folder": str(each.folder),
                    "renders": RENDERS[each.name],
                    "chapter": True,
                    "study": each.study,
                },
            }

    use rule * from chapter as prefix*


TARGETS = [getattr(rules, f"{each.name}_all").input for each in WHOLE.chapters]


STAGED = workflow.storage_settings.default_storage_provider is not None


# The results of all chapters in the schema of Every Eval Ever.
rule export:
    input:
        [getattr(rules, f"{each.name}_export").output for each in WHOLE.chapters],
    localrule: True


# The comparison of the same methods in several chapters.
TRAVEL = WHOLE.results / "travel"
TRAVELED = str(TRAVEL / "travel.csv") if len(WHOLE.compared) > 1 else None
if workflow.is_main_process and not STAGED:
    for dropped in drop_damaged_files(TRAVEL):
        logger.warning(f"{dropped} was damaged; making it again")


rule travel:
    input:
        scores=[
            Layout.of(study).scores(benchmark.name)
            for study, ablation in WHOLE.compared
            for benchmark in study.benchmarks_of(ablation)
        ],
        pairs=[
            Layout.of(study).ablation("pairs.csv", ablation.name)
            for study, ablation in WHOLE.compared
        ],
        paper=[
            local(os.path.relpath(in_clone("configs", "paper", name)))
            for name in ("results.csv", "notes.yaml")
        ],
        asked=whole_asked("travel"),
        code=[local(os.path.relpath(path)) for path in stage_files("travel").values()],
    output:
        report(
            TRAVEL / "travel.html",
            category="Do the findings travel?",
            labels={"what": "places and rank correlations"},
            caption="../report/travel.rst",
        ),
        [TRAVEL / f"travel{suffix}" for suffix in (".md", ".csv", ".svg", ".png")],
    localrule: True
    message:
        "Do the findings travel?"
    script:
        "../scripts/travel.py"


if TRAVELED:
    TARGETS.append(rules.travel.output)
