# The whole study: `snakemake` (everything), `snakemake --configfile configs/other.yaml`, or any file
# below results/. The stages are in workflow/rules, one file each; what they compute is in prunesid/.
import os
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.settings.types import DeploymentMethod

if not workflow.configfiles and not {"chapters", "benchmarks"} & set(config):
    # From the clone, whatever the working directory.
    clone = Path(workflow.current_basedir.get_path_or_uri(secret_free=True))

    configfile: str(clone / "configs" / "study.yaml")


# Only where it is asked for: to Snakemake, jobs in another environment are other jobs.
if DeploymentMethod.APPTAINER in workflow.deployment_settings.deployment_method:
    image = Path("prunesid.sif").resolve()
    if not image.is_file():
        raise WorkflowError(
            f"{image} is missing: apptainer build prunesid.sif prunesid.def"
        )
    # The image holds the environment alone; the code is this clone's.
    os.environ["APPTAINERENV_PYTHONPATH"] = workflow.current_basedir.get_path_or_uri(
        secret_free=True
    )

    container: str(image)


report: "workflow/report/workflow.rst"


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
    include: "workflow/rules/explorer.smk"
    include: "workflow/rules/publish.smk"
    include: "workflow/rules/estimate.smk"

    # Rules of your own: any .smk in the folder `rules` beside the study's file (docs/extending.md).
    for path in own_rules():

        include: path


rule all:
    default_target: True
    input:
        TARGETS,


onsuccess:
    print(closing(STUDIES))
