from pathlib import Path

from prunesid.render.facts import read_facts
from prunesid.render.figures import Subject
from prunesid.render.method_page import write_pages
from prunesid.study.comparison import read_comparison
from prunesid.study.config import parse_study
from prunesid.study.strata import read_strata

study = parse_study(snakemake.config, folder=Path(snakemake.params.folder))
ablation = study.ablation(snakemake.wildcards.ablation)
subject = Subject(
    read_comparison(Path(snakemake.input.comparison)),
    ablation,
    study.benchmarks_of(ablation),
    study.bootstrap,
    strata=read_strata(Path(snakemake.input.strata)),
    arms=read_facts(Path(snakemake.input.arms)),
)
agreement = read_facts(Path(snakemake.input.agreement))
write_pages(subject, agreement, Path(snakemake.output[0]))
