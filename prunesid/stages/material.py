"""What determines the results of a stage, as JSON values for the keys of the store."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prunesid.answering import Question
from prunesid.files import code_digest, digest, file_digest
from prunesid.media import FRAMES

# What decides which tokens an arm keeps. Adding a method or a grouping must not rerun others, so
# only what several methods share counts here; the method's own module is added by
# `selection_material`.
_CORE = (
    "prunesid.box", "prunesid.crops", "prunesid.pools", "prunesid.record", "prunesid.records",
    "prunesid.numerics", "prunesid.seeding", "prunesid.psca", "prunesid.nms",
    "prunesid.quotas", "prunesid.information", "prunesid.methods.ragged",
    "prunesid.scores.cls_attention",
)  # fmt: skip
# Families build on one another and on shared files, so that all of them count.
_FAMILIES = (
    "prunesid.box",
    "prunesid.crops",
    "prunesid.pools",
    "prunesid.records",
    "prunesid.models",
)
POCKET_WEIGHTS = Path(__file__).resolve().parents[1] / "pocket" / "weights"


def model_path(model: str) -> str:
    """Where the weights of a study's `model` lie: a folder or a hub id."""
    return str(POCKET_WEIGHTS) if model == "pocket" else model


def model_digest(model: str) -> str:
    """Digest of a checkpoint's files; for a hub id, of the revision in the local cache."""
    folder = Path(model_path(model))
    if folder.is_dir():
        files = sorted(p for p in folder.rglob("*") if p.suffix in (".json", ".safetensors"))
        return digest({p.relative_to(folder).as_posix(): file_digest(p) for p in files})
    from huggingface_hub import snapshot_download

    return digest({"model": model, "revision": Path(snapshot_download(model)).name})


def questions_digest(questions: Sequence[Question], data: Path | None) -> str:
    """Digest of a benchmark: its questions and, where it is one, the file that holds its images."""
    asked = [(q.id, q.image_id, q.context, q.target, dict(q.gen_kwargs)) for q in questions]
    content = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
    return digest({"questions": content, "data": None if data is None else file_digest(data)})


def features_material(
    *, benchmark: str, model: str, family: str, batch_size: int, dtype: str, device: str,
    options: Sequence[tuple[str, Any]] = (), frames: int = FRAMES,
) -> dict[str, Any]:  # fmt: skip
    """What determines the vision features of a benchmark's images; the layers stored do not.

    `options` are those that the model was loaded with. The usual number of frames is left out, so
    that it renames nothing of benchmarks without clips.
    """
    return {
        "stage": "features",
        "benchmark": benchmark,
        "model": model,
        "batch_size": batch_size,
        "dtype": dtype,
        "device": device,
        "options": dict(options),
        **({} if frames == FRAMES else {"frames": frames}),
        "code": code_digest(*_FAMILIES, family),
        "versions": {name: importlib.metadata.version(name) for name in ("torch", "transformers")},
    }


def score_material(
    *, answers: Sequence[str], benchmark: str, arm: str, metric: str
) -> dict[str, Any]:
    """What determines an arm's scores; `answers` are the keys of its answers, shard by shard."""
    return {
        "stage": "score",
        "answers": list(answers),
        "benchmark": benchmark,
        "arm": arm,
        "metric": metric,
        "code": code_digest("prunesid.evaluation"),
        "lmms-eval": importlib.metadata.version("lmms-eval"),
    }


def selection_material(
    arm: dict[str, Any], features: dict[str, Any], modules: Sequence[str]
) -> dict[str, Any]:
    """What determines an arm's kept tokens. `arm` is resolved, `modules` those it runs through."""
    return {
        "stage": "select",
        "arm": arm,
        "features": features,
        "code": code_digest(*_CORE, *modules),
    }
