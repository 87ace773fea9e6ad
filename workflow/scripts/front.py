import json
from dataclasses import replace
from pathlib import Path

from prunesid.study.config.chapters import read_whole
from prunesid.study.provenance.seals import seal
from prunesid.study.report.front import write_front
from prunesid.study.report.paper import load_paper

asked = json.loads(Path(snakemake.input.asked).read_text())
whole = read_whole([Path(path) for path in asked["files"]], asked["given"])
paper = load_paper(Path(snakemake.input.paper[0]).parent)
outputs = [Path(path) for path in snakemake.output]
# Where results are staged, they are copies beside the page's.
results = outputs[0].parent
travel = results / "travel" / "travel.csv" if asked["traveled"] else None
write_front(
    whole.title,
    [replace(study, results=results) for study in whole.studies],
    paper,
    travel,
    outputs,
)
if not asked["staged"]:
    seal(outputs)
