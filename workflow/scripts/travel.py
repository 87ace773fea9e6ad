import json
from dataclasses import replace
from pathlib import Path

from prunesid.study.config.chapters import read_whole
from prunesid.study.provenance.seals import seal
from prunesid.study.report.paper import load_paper
from prunesid.study.report.travel import write_travel

asked = json.loads(Path(snakemake.input.asked).read_text())
whole = read_whole([Path(path) for path in asked["files"]], asked["given"])
outputs = [Path(path) for path in snakemake.output]
# Of results that are staged, the job has copies.
results = Path(snakemake.input.scores[0]).parents[2]
compared = [(replace(study, results=results), ablation) for study, ablation in whole.compared]
write_travel(compared, load_paper(Path(snakemake.input.paper[0]).parent), outputs)
seal(outputs)
