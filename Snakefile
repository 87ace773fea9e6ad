# The whole study: `snakemake` (everything), `snakemake --configfile configs/other.yaml`, or any file
# below results/. The stages are in workflow/rules, one file each; what they compute is in prunesid/.
import json
import os
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.scheduling.job_scheduler import JobScheduler
from snakemake.settings.types import DeploymentMethod

from prunesid.core.files import write_changed
from prunesid.study.planning.looks import look_once
from prunesid.study.surroundings import refuse_surroundings

refuse_surroundings()
look_once(JobScheduler)

if not workflow.configfiles and not {"chapters", "benchmarks"} & set(config):
    # From the clone, whatever the working directory.
    clone = Path(workflow.current_basedir.get_path_or_uri(secret_free=True))

    configfile: str(clone / "configs" / "study.yaml")


# Set only if it is asked for, since Snakemake would rerun jobs whose environment changes.
if DeploymentMethod.APPTAINER in workflow.deployment_settings.deployment_method:
    image = Path("prunesid.sif").resolve()
    if not image.is_file():
        raise WorkflowError(
            f"{image} is missing: apptainer build prunesid.sif prunesid.def"
        )
    # The image holds only the environment; the code is that of this clone.
    os.environ["APPTAINERENV_PYTHONPATH"] = workflow.current_basedir.get_path_or_uri(
        secret_free=True
    )

    container: str(image)


def whole_asked(rule, **more):
    """An input function: a file that says which study a rule shows whole, and `more`.

    The study is read from the files that it names: the configuration has neither lines nor chapters.
    """

    def written(wildcards):
        path = STUDIES[0].results / "asked" / f"{rule}.json"
        asked = {
            "files": [os.path.relpath(file) for file in workflow.configfiles],
            "given": workflow.config_settings.config,
            "titles": [study.title for study in STUDIES],
            **more,
        }
        write_changed(path, json.dumps(asked, indent=1) + "\n")
        return local(str(path))

    return written


if "chapters" in config:

    include: "workflow/rules/chapters.smk"

else:

    include: "workflow/rules/common.smk"
    include: "workflow/rules/images.smk"
    include: "workflow/rules/features.smk"
    include: "workflow/rules/questions.smk"
    include: "workflow/rules/encoding.smk"
    include: "workflow/rules/answers.smk"
    include: "workflow/rules/ablations.smk"
    include: "workflow/rules/measure.smk"
    include: "workflow/rules/methods.smk"
    include: "workflow/rules/pictures.smk"
    include: "workflow/rules/notebook.smk"
    include: "workflow/rules/publish.smk"
    include: "workflow/rules/estimate.smk"
    include: "workflow/rules/explorer.smk"
    include: "workflow/rules/export.smk"

    # Rules of your own: any .smk in the folder `rules` beside the study's file (docs/extending.md).
    for path in own_rules():

        include: path


# A first page for this workflow only: one that runs as a chapter or a module is shown by its parent workflow.
if workflow.modifier.is_main_snakefile() and workflow.configfiles:

    include: "workflow/rules/front.smk"


# Snakemake's report starts with the findings, if there are any.
if (STUDIES[0].results / "start.html").is_file():

    report: "workflow/report/start.rst"

else:

    report: "workflow/report/workflow.rst"


rule all:
    default_target: True
    input:
        TARGETS,


onsuccess:
    if STAGED:
        print(f"First page: {rules.front.output.page.storage_object.query}")
    else:
        print(closing(STUDIES))
