from pathlib import Path

import pandas as pd

from prunesid.study.analysis.comparison import read_comparison, write_csv
from prunesid.study.analysis.latency import read_timings, summarize
from prunesid.study.job import Job
from prunesid.study.report import theme
from prunesid.study.report.arm_facts import read_facts
from prunesid.study.report.figures import Subject
from prunesid.study.report.latency import (
    Clocked,
    draw_speed,
    draw_stations,
    latency_table,
    speed_points,
)
from prunesid.study.report.paper import load_paper
from prunesid.study.report.table import write_table

job = Job(snakemake)
study, ablation = job.study, job.ablation
subject = Subject(
    read_comparison(job.input("comparison")),
    ablation,
    study.benchmarks_of(ablation),
    study.bootstrap,
    facts=read_facts(job.input("arms")),
)
timings = read_timings(job.input("timings"))
costs = pd.read_csv(job.input("costs")).set_index("arm").to_dict("index")
times = summarize(timings, costs, study.bootstrap.confidence)
write_csv(times, Path(snakemake.output.latency))
clocked = Clocked(subject, times, ablation.clocked)
write_table(
    latency_table(clocked, load_paper(job.inputs("paper")[0].parent)),
    [Path(snakemake.output[kind]) for kind in ("html", "markdown", "tex")],
)
points = speed_points(clocked)
for name, draw in (("speed", draw_speed), ("stations", draw_stations)):
    paths = [Path(path) for path in snakemake.output[name]]
    theme.write(draw(points, clocked), points, paths)
job.seal()
