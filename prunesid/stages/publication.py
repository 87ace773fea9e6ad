"""The finished arms and their comparison, as runs of an experiment tracker."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from prunesid.files import atomic
from prunesid.study.config import Study
from prunesid.tracking import Run, Settings
from prunesid.tracking.environment import environment
from prunesid.tracking.publish import publish
from prunesid.tracking.runs import runs_of


def publish_study(
    study: Study,
    scores: Mapping[str, Path],
    ablations: Mapping[str, Path],
    directory: Path,
    output: Path,
) -> None:
    """Publish every arm of every ablation and write what to tell the user to `output`.

    scores     {benchmark: per-question table}
    ablations  {ablation: folder with figure.png and table.html}
    """
    table = pd.concat([pd.read_parquet(p) for p in scores.values()], ignore_index=True)
    surroundings = environment(study.device)
    runs: list[Run] = []
    for name, folder in ablations.items():
        files = {"figure": folder / "figure.png", "table": folder / "table.html"}
        runs += runs_of(study, study.ablation(name), table, files, surroundings)
    settings = Settings(study.wandb.mode, study.wandb.project, study.wandb.entity)
    message = publish(runs, directory, settings).message()
    with atomic(output) as temporary:
        temporary.write_text(message + "\n")
