"""Facts of models and data sets on the hub, known before anything is downloaded.

    hub_models()["llava-hf/llava-1.5-7b-hf"].config["model_type"]

The tables are configs/hub/models.yaml and datasets.yaml.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from prunesid.study.clone import in_clone
from prunesid.study.config.documents import read_yaml


@dataclass(frozen=True)
class HubModel:
    """`config`: fields of its config.json; `parameters`: its weights, None where not counted."""

    config: Mapping[str, Any]
    parameters: int | None = None


@dataclass(frozen=True)
class TaskSize:
    """An lmms-eval task's data; None where it is not known.

    images, questions  of the split that the task asks
    answer_tokens      of a usual answer
    download           bytes of the files that `datasets` fetches for the task, all its splits
    """

    images: int | None = None
    questions: int | None = None
    answer_tokens: int = 4
    download: int | None = None

    @property
    def is_known(self) -> bool:
        return None not in (self.images, self.questions)


@cache
def hub_models() -> Mapping[str, HubModel]:
    """The models by their names on the hub."""
    return {name: HubModel(**own) for name, own in _read("models").items()}


@cache
def hub_tasks() -> Mapping[str, TaskSize]:
    """The data of lmms-eval's tasks by their names."""
    return {name: TaskSize(**own) for name, own in _read("datasets").items()}


def _read(name: str) -> Mapping[str, Any]:
    document: Mapping[str, Any] = read_yaml(in_clone("configs", "hub", f"{name}.yaml"))
    return document
