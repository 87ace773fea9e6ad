"""Report at once everything that a study needs and that is missing.

    prunesid check configs/llava-1.5-7b.yaml

`make check CONFIG=...` says the same. It looks at packages, GPU, memory and disk, at the checkpoint
and the benchmarks' data in the local caches and on the hub, at tokens, and at what scoring needs.
Nothing is downloaded or computed. The exit status is 1 where something is missing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from prunesid.images.relevance import TEXT_TOWER
from prunesid.pocket import EMBEDDED
from prunesid.pocket.benchmarks import BENCHMARKS as RENDERED
from prunesid.study.config.chapters import load_whole
from prunesid.study.config.documents import ConfigError, collecting, read_yaml
from prunesid.study.config.model import POCKET, folder_of, geometry_of, is_hub_name
from prunesid.study.config.study import Study
from prunesid.study.planning.checks.checkpoint import as_tower, check_folder, check_repository
from prunesid.study.planning.checks.data import check_data, check_token
from prunesid.study.planning.checks.finding import MISSING, OK, Finding
from prunesid.study.planning.checks.hub import Hub
from prunesid.study.planning.checks.machine import Machine, check_disks, check_gpu, check_memory
from prunesid.study.planning.checks.packages import VIDEO, Installed, check_packages, installed
from prunesid.study.planning.checks.scores import check_scores
from prunesid.study.planning.checks.start import refuse_unready
from prunesid.study.planning.checks.tasks import known_data
from prunesid.study.planning.checks.wandb import check_wandb
from prunesid.study.planning.hardware import weight_bytes


def check(
    path: Path, hub: Hub, machine: Machine, version_of: Installed = installed
) -> list[Finding]:
    """Every finding about the study in a YAML file.

    Of an invalid study, its problems and whatever its file alone can tell.
    """
    try:
        studies = load_whole(path).studies
    except ConfigError as error:
        return [
            *(Finding(MISSING, "study", problem) for problem in error.shown),
            *check_packages(["study"], version_of=version_of),
            *_checkpoint(_model_of(path), hub),
        ]
    # What several chapters need is said once.
    found = (each for study in studies for each in _of(study, hub, machine, version_of))
    return list(dict.fromkeys(found))


def _of(study: Study, hub: Hub, machine: Machine, version_of: Installed) -> Iterator[Finding]:
    """The findings about the study of one model."""
    tasks = [benchmark.task for benchmark in study.encoded]
    extras = ["study"] + ["wandb"] * (study.wandb.mode != "disabled") + ["trackio"] * study.trackio
    fetched = [task for task in tasks if task not in RENDERED]
    video = any(part.video for task in fetched for part in known_data(task))
    checkpoint = _checkpoint(study.model, hub)
    tower = _checkpoint(dict(study.model_options).get(TEXT_TOWER), hub)
    data = list(check_data(hub, tasks))
    counts = f"{study.title}: {len(study.arms)} arms, {len(study.benchmarks)} benchmarks"
    found = [
        *check_packages(extras, VIDEO if video else (), version_of),
        *_hardware(study, hub, machine, [*checkpoint, *tower], data),
        *checkpoint,
        *map(as_tower, tower),
        *data,
        *check_token(hub, tasks),
        *check_scores(study.benchmarks),
        *check_wandb(study.wandb.mode, os.environ, Path.home()),
    ]
    yield Finding(OK, "study", counts)
    yield from _unready(study, [each.detail for each in found if each.state == MISSING])
    yield from found


def _unready(study: Study, told: Sequence[str]) -> Iterator[Finding]:
    """Why the study would not start here, without problems that mention one of `told`."""
    problems: list[str] = []
    with collecting(problems):
        refuse_unready(study)
    for problem in problems:
        if not any(detail in problem for detail in told):
            yield Finding(MISSING, "study", problem)


def _hardware(
    study: Study, hub: Hub, machine: Machine, models: Sequence[Finding], data: Sequence[Finding]
) -> Iterator[Finding]:
    # Imported here: they take seconds, and without pandas or torch the packages are reported.
    from prunesid.study.planning.estimate import estimate
    from prunesid.study.planning.total_cost import total_cost

    copies = sum(found.download for found in data)
    downloads = sum(found.download for found in models) + copies
    if is_hub_name(study.model) and models[0].state == MISSING:
        downloads += weight_bytes(geometry_of(study.model), study.dtype)
    cost, results = total_cost(study), estimate(study).bytes + copies
    yield check_gpu(machine, study.device, cost.gpu_memory, study.model in EMBEDDED)
    yield check_memory(machine, cost.memory)
    needs = {study.results: ("results", results), hub.cache: ("downloads", downloads)}
    yield from check_disks(machine, needs)


def _checkpoint(model: str | None, hub: Hub) -> list[Finding]:
    if model is None:
        return []
    # A folder that is missing, or whose path cannot be one, is among the study's own problems.
    try:
        named, folder = is_hub_name(model), folder_of(model)
        there = folder.is_dir()
    except (OSError, RuntimeError):
        return []
    if named:
        return [check_repository(hub, model)]
    return [check_folder(folder)] if there else []


def _model_of(path: Path) -> str | None:
    """The model that the file of an invalid study names, if it can be read."""
    try:
        document = read_yaml(path)
    except (ConfigError, OSError):
        return None
    named = document.get("model", POCKET) if isinstance(document, dict) else None
    return named if isinstance(named, str) else None
