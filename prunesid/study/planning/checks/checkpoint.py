"""A study's checkpoint: its folder, or its files in the local cache, or what the hub has of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from prunesid.study.planning.checks.finding import MISSING, OK, UNKNOWN, Finding
from prunesid.study.planning.checks.hub import MODEL, Hub, downloadable

WHAT = "checkpoint"
INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
PICKLED = "has no safetensors weights, the only ones that are read"
Find = Callable[[str], Path | None]


def check_folder(folder: Path) -> Finding:
    """A model that transformers saved: configuration, all weights, tokenizer."""
    lacking = absent(lambda name: folder / name if (folder / name).is_file() else None)
    remedy = "save the model and its processor there with save_pretrained()"
    if lacking:
        return Finding(MISSING, WHAT, f"{folder} lacks {_some(lacking)}", remedy)
    broken = [path.name for path in sorted(folder.glob("*.safetensors")) if not _is_whole(path)]
    if broken:
        return Finding(MISSING, WHAT, f"{folder}: {_some(broken)} is cut short or broken", remedy)
    return Finding(OK, WHAT, str(folder))


def check_repository(hub: Hub, name: str) -> Finding:
    """A model on the hub, and the bytes that are to be downloaded of it, as far as they can be."""

    def find(file: str) -> Path | None:
        return hub.cached(name, file)

    lacking = absent(find)
    if not lacking:
        return Finding(OK, WHAT, f"{name}, in the local cache")
    part = find("config.json") is not None
    here = f"the local cache lacks {_some(lacking)}" if part else "not in the local cache"
    repository = downloadable(hub, WHAT, name, MODEL, here)
    if isinstance(repository, Finding):
        return repository
    weights = [s or 0 for f, s in repository.files.items() if f.endswith(".safetensors")]
    if not weights:
        return Finding(MISSING, WHAT, f"{name} {PICKLED}", "another repository of the same model")
    size = sum(weights)
    gated = ", gated, access granted" if repository.gated else ""
    detail = f"{name}: {here}; {size / 1e9:,.1f} GB to download{gated}"
    return Finding(OK, WHAT, detail, download=size)


def as_tower(found: Finding) -> Finding:
    """The finding of a text tower's checkpoint, which transformers loads.

    Where its main branch has no safetensors, transformers takes those that the hub's conversion bot
    proposes, if it does.
    """
    found = replace(found, what="text tower")
    if PICKLED not in found.detail:
        return found
    remedy = "the first load asks the hub for a converted revision; or save the model with "
    remedy += "save_pretrained() and name the folder"
    detail = f"{found.detail}, on its main branch"
    return replace(found, state=UNKNOWN, detail=detail, remedy=remedy)


def absent(find: Find) -> list[str]:
    """The files of a checkpoint that cannot be found; every shard that the index names counts."""
    index = find(INDEX)
    weights = [SINGLE]
    if index is not None:
        try:
            shards = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
            weights = sorted(set(map(str, shards)))
        except (ValueError, LookupError, TypeError, AttributeError):
            weights = [f"a readable {INDEX}"]
    needed = ["config.json", "tokenizer_config.json", *weights]
    return [name for name in needed if find(name) is None]


def _is_whole(path: Path) -> bool:
    """True if the file's header and length are those of safetensors; nothing more is read."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np"):
            return True
    except (SafetensorError, OSError):
        return False


def _some(names: list[str], most: int = 4) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
