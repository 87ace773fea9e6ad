from pathlib import Path

from prunesid.study.analysis.comparison import read_comparison
from prunesid.study.analysis.strata import read_strata
from prunesid.study.config.study import parse_study
from prunesid.study.report.arm_facts import read_facts
from prunesid.study.report.figures import Subject
from prunesid.study.report.method_page import write_pages

study = parse_study(snakemake.config, folder=Path(snakemake.params.folder))
ablation = study.ablation(snakemake.wildcards.ablation)
subject = Subject(
    read_comparison(Path(snakemake.input.comparison)),
    ablation,
    study.benchmarks_of(ablation),
    study.bootstrap,
    strata=read_strata(Path(snakemake.input.strata)),
    facts=read_facts(Path(snakemake.input.arms)),
)
agreement = read_facts(Path(snakemake.input.agreement))
write_pages(subject, agreement, Path(snakemake.output[0]))
