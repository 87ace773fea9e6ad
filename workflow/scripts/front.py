import json
from pathlib import Path

from prunesid.study.config.chapters import read_whole
from prunesid.study.provenance.seals import seal
from prunesid.study.report.front import write_front
from prunesid.study.report.paper import load_paper

asked = json.loads(Path(snakemake.input.asked).read_text())
whole = read_whole([Path(path) for path in asked["files"]], asked["given"])
paper = load_paper(Path(snakemake.input.paper[0]).parent)
travel = Path(asked["traveled"]) if asked["traveled"] else None
outputs = [Path(path) for path in snakemake.output]
write_front(whole.title, whole.studies, paper, travel, outputs)
seal(outputs)
