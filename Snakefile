# The whole study: `snakemake` (everything), `snakemake --configfile configs/other.yaml`, or any file
# below results/. The stages are in workflow/rules, one file each; what they compute is in prunesid/.
if "benchmarks" not in config:

    configfile: "configs/pocket.yaml"


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/images.smk"
include: "workflow/rules/features.smk"
include: "workflow/rules/answers.smk"
include: "workflow/rules/ablations.smk"
include: "workflow/rules/publish.smk"


rule all:
    default_target: True
    input:
        TARGETS,


onsuccess:
    print(closing_message())
