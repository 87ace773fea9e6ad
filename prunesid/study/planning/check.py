"""Is everything there that a study needs? Everything that is missing, at once.

    python -m prunesid.study.planning.check configs/llava-1.5-7b.yaml

`make check CONFIG=...` says the same. It looks at packages, GPU, memory and disk, at the checkpoint
and the benchmarks' data in the local caches and on the hub, at tokens, and at what scoring needs.
Nothing is downloaded or computed. The exit status is 1 where something is missing.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from prunesid.images.relevance import TEXT_TOWER
from prunesid.pocket import WEIGHTS
from prunesid.pocket.benchmarks import BENCHMARKS as RENDERED
from prunesid.study.config.documents import ConfigError, read_yaml
from prunesid.study.config.model import POCKET, geometry_of, is_hub_name
from prunesid.study.config.study import Study, load_study
from prunesid.study.planning.checks.checkpoint import as_tower, check_folder, check_repository
from prunesid.study.planning.checks.data import check_data, check_token
from prunesid.study.planning.checks.finding import MISSING, OK, Finding, summary, text
from prunesid.study.planning.checks.hub import Hub, HuggingFace
from prunesid.study.planning.checks.machine import (
    Machine,
    ThisMachine,
    check_disks,
    check_gpu,
    check_memory,
)
from prunesid.study.planning.checks.packages import VIDEO, Installed, check_packages, installed
from prunesid.study.planning.checks.scores import check_scores
from prunesid.study.planning.checks.tasks import known_data
from prunesid.study.planning.checks.wandb import check_wandb
from prunesid.study.planning.hardware import weight_bytes


def check(
    path: Path, hub: Hub, machine: Machine, version_of: Installed = installed
) -> list[Finding]:
    """Every finding about the study in a YAML file.

    Of a study that is not valid what can be told from its file alone is checked all the same.
    """
    try:
        study = load_study(path)
    except ConfigError as error:
        return [
            *(Finding(MISSING, "study", problem) for problem in error.problems),
            *check_packages(["study"], version_of=version_of),
            *(finding for finding, _ in _checkpoint(_model_of(path), hub)),
        ]
    tasks = [benchmark.task for benchmark in study.encoded]
    extras = ["study"] + ["wandb"] * (study.wandb.mode != "disabled") + ["trackio"] * study.trackio
    fetched = [task for task in tasks if task not in RENDERED]
    video = any(part.video for task in fetched for part in known_data(task))
    tower = dict(study.model_options).get(TEXT_TOWER)
    checkpoint = list(_checkpoint(study.model, hub))
    checkpoint += [(as_tower(found), size) for found, size in _checkpoint(tower, hub)]
    data = list(check_data(hub, tasks))
    copies = sum(size for _, size in data)
    downloads = sum(size for _, size in checkpoint) + copies
    if is_hub_name(study.model) and checkpoint[0][0].state == MISSING:
        downloads += weight_bytes(geometry_of(study.model), study.dtype)
    return [
        Finding(OK, "study", f"{len(study.arms)} arms, {len(study.benchmarks)} benchmarks"),
        *check_packages(extras, VIDEO if video else (), version_of),
        *_hardware(study, hub, machine, downloads, copies),
        *(finding for finding, _ in (*checkpoint, *data)),
        *check_token(hub, tasks),
        *check_scores(study.benchmarks),
        *check_wandb(study.wandb.mode, os.environ, Path.home()),
    ]


def _hardware(
    study: Study, hub: Hub, machine: Machine, downloads: float, copies: float
) -> Iterator[Finding]:
    # Here: pandas and torch take seconds, and without them the packages are reported, not a trace.
    from prunesid.study.planning.estimate import estimate
    from prunesid.study.planning.outlook import outlook

    whole, left = outlook(study), estimate(study).bytes
    yield from check_gpu(machine, study.device, whole.gpu_memory, study.model == POCKET)
    yield from check_memory(machine, whole.memory)
    yield from check_disks(
        machine,
        {study.results: ("results", left + copies), hub.cache: ("downloads", downloads)},
    )


def _checkpoint(model: str | None, hub: Hub) -> Iterator[tuple[Finding, float]]:
    if model is None:
        return
    if not is_hub_name(model):
        folder = WEIGHTS if model == POCKET else Path(model).expanduser()
        if folder.is_dir():  # else the study's own problems say so
            yield from ((finding, 0.0) for finding in check_folder(folder))
        return
    yield check_repository(hub, model)


def _model_of(path: Path) -> str | None:
    """The model that a file names which is no valid study, if it can be read so far."""
    try:
        document = read_yaml(path)
    except (ConfigError, OSError):
        return None
    named = document.get("model", POCKET) if isinstance(document, dict) else None
    return named if isinstance(named, str) else None


def main() -> None:
    parser = argparse.ArgumentParser(description="Is everything there that a study needs?")
    parser.add_argument("study", type=Path, help="the study's YAML file")
    given = parser.parse_args()
    found = check(given.study, HuggingFace(), ThisMachine())
    print(text(found))
    print(f"\n{summary(found)}")
    sys.exit(any(finding.state == MISSING for finding in found))


if __name__ == "__main__":
    main()
