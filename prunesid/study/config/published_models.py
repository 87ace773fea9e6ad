"""Facts of published models and data sets, known before anything is downloaded.

    published_model("llava-hf/llava-1.5-7b-hf").config["model_type"]

The tables are configs/published/models.yaml and datasets.yaml.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from prunesid.study.config.documents import read_yaml

FOLDER = Path(__file__).resolve().parents[3] / "configs" / "published"


@dataclass(frozen=True)
class PublishedModel:
    """`config`: fields of its config.json; `parameters`: its weights, None where not counted."""

    config: Mapping[str, Any]
    parameters: int | None = None


@dataclass(frozen=True)
class PublishedTask:
    """An lmms-eval task's data; None where it is not known.

    images, questions  of the split that the task asks
    answer_tokens      of a usual answer
    download           bytes of the files that `datasets` fetches for the task, all its splits
    """

    images: int | None = None
    questions: int | None = None
    answer_tokens: int = 4
    download: int | None = None


def published_model(name: str) -> PublishedModel | None:
    """A model by its name on the hub."""
    found = _table("models").get(name)
    return None if found is None else PublishedModel(**found)


def published_models() -> list[str]:
    """The names of the models in the table."""
    return list(_table("models"))


def published_task(name: str) -> PublishedTask | None:
    """The data of an lmms-eval task."""
    found = _table("datasets").get(name)
    return None if found is None else PublishedTask(**found)


@cache
def _table(name: str) -> Mapping[str, Any]:
    return read_yaml(FOLDER / f"{name}.yaml")
