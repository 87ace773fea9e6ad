from pathlib import Path

from prunesid.render.facts import read_facts
from prunesid.render.figures import Subject
from prunesid.render.method_page import build_page, write_page
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
page = build_page(snakemake.wildcards.method, subject, read_facts(Path(snakemake.input.agreement)))
write_page(page, subject, [Path(path) for path in snakemake.output])
