import os
from pathlib import Path

from snakemake.exceptions import WorkflowError

import prunesid
from prunesid.pocket.benchmarks import BENCHMARKS as RENDERED
from prunesid.stages.material import POCKET_WEIGHTS
from prunesid.study.config import parse_study
from prunesid.study.documents import ConfigError

# Benchmarks and ablations are looked up beside the study's own file first.
STUDY_FOLDER = Path(workflow.configfiles[-1]).resolve().parent
try:
    STUDY = parse_study(config, folder=STUDY_FOLDER)
except ConfigError as error:
    raise WorkflowError(str(error)) from None

RESULTS = STUDY.results
MODEL = RESULTS / STUDY.model_name
STORE = RESULTS / "store"
PACKAGE = Path(prunesid.__file__).parent
TARGETS = []

# lmms-eval copies each benchmark into this cache; beside the results it goes when they go.
os.environ.setdefault("HF_DATASETS_CACHE", str((RESULTS / "cache").resolve()))
os.environ.setdefault("LOGURU_LEVEL", "WARNING")


wildcard_constraints:
    benchmark="|".join(b.name for b in STUDY.benchmarks),
    ablation="|".join(a.name for a in STUDY.ablations),


def sources(*names):
    """Files of the library that a rule's results depend on: an edit reruns, a touch does not."""
    found = []
    for name in names:
        path = PACKAGE / name
        found += sorted(path.rglob("*.py")) if path.is_dir() else [path]
    return [os.path.relpath(path) for path in found]


def weights():
    """The model's files, where it is a local folder."""
    folder = POCKET_WEIGHTS if STUDY.model == "pocket" else Path(STUDY.model)
    return [os.path.relpath(p) for p in sorted(folder.glob("*.safetensors"))]


def rendered_file(task):
    return RESULTS / "pocket" / "data" / f"{task}.parquet"


def task_data(wildcards):
    """The parquet file of a benchmark that we render; nothing for those from the hub."""
    task = STUDY.benchmark(wildcards.benchmark).task
    return rendered_file(task) if task in RENDERED else []


def arm_names(wildcards):
    return [arm.name for arm in STUDY.arms_of(wildcards.benchmark)]


def model_threads():
    # One thread per job, several benchmarks side by side: faster on a CPU than threads inside a
    # small model, and the same numbers on every machine.
    return 1


def needs_text(benchmark):
    """What the vision tower has to leave behind, as text: a change of it reruns the tower."""
    from prunesid.stages.features import needs_of

    return str(needs_of(STUDY.arms_of(benchmark)))
