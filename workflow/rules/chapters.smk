# A study of several models: every chapter is this workflow as a module, with the study of one model.
from snakemake.exceptions import WorkflowError

from prunesid.pocket.benchmarks import BENCHMARKS
from prunesid.study.config.chapters import read_whole, rendered_by
from prunesid.study.config.documents import ConfigError
from prunesid.study.report.closing import closing

try:
    WHOLE = read_whole(
        [Path(path) for path in workflow.configfiles], workflow.config_settings.config
    )
except ConfigError as error:
    raise WorkflowError(str(error)) from None

STUDIES = WHOLE.studies
RENDERS = rendered_by(WHOLE.chapters, list(BENCHMARKS))
for each in WHOLE.chapters:
    # What `use rule` reads: the module's name, and what stands before the names of its rules.
    chapter = each.name
    prefix = f"{chapter}_"

    module:
        name: chapter
        snakefile:
            "../../Snakefile"
        config:
            {
                **each.document.value,
                "study_folder": str(each.folder),
                "study_renders": RENDERS[chapter],
            }

    use rule * from chapter as prefix*


TARGETS = [getattr(rules, f"{each.name}_all").input for each in WHOLE.chapters]
