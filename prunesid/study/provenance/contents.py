"""The data that determine the results of a stage, as JSON values for the keys of the store."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunesid.core.files import digest, file_digest
from prunesid.images.media import FRAMES
from prunesid.images.relevance import TEXT_TOWER
from prunesid.pocket import EMBEDDED
from prunesid.study.provenance.code import code_of

if TYPE_CHECKING:
    from prunesid.core.questions import Question
    from prunesid.study.stages.source import Runtime


def model_path(model: str) -> str:
    """The place of a study's weights: a folder or a hub id."""
    return str(EMBEDDED.get(model, model))


def model_digest(model: str) -> str:
    """Digest of a checkpoint's files; for a hub id, of the revision in the local cache."""
    folder = Path(model_path(model))
    if folder.is_dir():
        files = sorted(p for p in folder.rglob("*") if p.suffix in (".json", ".safetensors"))
        return digest({p.relative_to(folder).as_posix(): file_digest(p) for p in files})
    from huggingface_hub import snapshot_download

    return digest({"model": model, "revision": Path(snapshot_download(model)).name})


def tower_digest(path: str) -> str:
    """Digest of a text tower's files; for a hub id, of the revision in the local cache."""
    if Path(path).is_dir():
        return model_digest(path)
    from huggingface_hub import hf_hub_download

    # A hub's CLIP holds its weights in several forms, of which a snapshot would load all.
    config = Path(hf_hub_download(path, "config.json"))
    return digest({"model": path, "revision": config.parent.name})


def questions_digest(questions: Sequence[Question], data: Path | None) -> str:
    """Digest of a benchmark: its questions and, where it is one, the file that holds its images."""
    asked = [(q.id, q.image_id, q.context, q.target, dict(q.gen_kwargs)) for q in questions]
    content = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
    return digest({"questions": content, "data": None if data is None else file_digest(data)})


def features_material(benchmark: str, runtime: Runtime, frames: int) -> dict[str, Any]:
    """The key of the vision features of a benchmark's images; the layers stored are no part of it.

    `benchmark` is a `questions_digest`. The text tower is left out: it changes only what is
    compared with questions (`tower_digest`). The usual number of frames is left out, too, so that
    benchmarks without clips keep their keys.
    """
    return {
        "stage": "features",
        "benchmark": benchmark,
        "model": model_digest(runtime.model),
        "batch_size": runtime.batch_size,
        "dtype": runtime.dtype,
        "device": runtime.device,
        "options": {n: value for n, value in runtime.options if n != TEXT_TOWER},
        **({} if frames == FRAMES else {"frames": frames}),
        "code": code_of("features", model=runtime.model),
        "versions": {name: version(name) for name in ("torch", "transformers")},
    }


# Metadata is parsed at every call, and there is a call for every arm.
@cache
def version(package: str) -> str:
    """The installed version of a package."""
    return importlib.metadata.version(package)


def score_material(
    *, answers: Sequence[str], benchmark: str, arm: str, metric: str
) -> dict[str, Any]:
    """The key of an arm's scores; `answers` are the keys of its answers, shard by shard."""
    return {
        "stage": "score",
        "answers": list(answers),
        "benchmark": benchmark,
        "arm": arm,
        "metric": metric,
        "code": code_of("score"),
        "lmms-eval": version("lmms-eval"),
    }
