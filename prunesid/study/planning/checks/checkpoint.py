"""A study's checkpoint: its folder, or its files in the local cache, or what the hub has of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from prunesid.study.planning.checks.finding import MISSING, OK, UNKNOWN, Finding
from prunesid.study.planning.checks.hub import Hub, NotReachable, NotThere, Repository

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
PICKLED = "has no safetensors weights, the only ones that are read"
Find = Callable[[str], Path | None]


def check_folder(folder: Path) -> Iterator[Finding]:
    """A model that transformers saved: configuration, all weights, tokenizer."""
    lacking = absent(lambda name: folder / name if (folder / name).is_file() else None)
    if lacking:
        yield Finding(
            MISSING, "checkpoint", f"{folder} lacks {_some(lacking)}",
            "save the model and its processor there with save_pretrained()",
        )  # fmt: skip
    else:
        yield Finding(OK, "checkpoint", str(folder))


def check_repository(hub: Hub, name: str) -> tuple[Finding, float]:
    """A model on the hub, and the bytes that are to be downloaded of it, as far as they can be."""
    what = "checkpoint"

    def find(file: str) -> Path | None:
        return hub.cached(name, file)

    lacking = absent(find)
    if not lacking:
        return Finding(OK, what, f"{name}, in the local cache"), 0.0
    part = find("config.json") is not None
    here = f"the local cache lacks {_some(lacking)}" if part else "not in the local cache"
    if hub.offline:
        return Finding(
            MISSING, what, f"{name}: {here}, and HF_HUB_OFFLINE keeps it from being downloaded",
            f"`HF_HUB_OFFLINE=0 hf download {name}` where there is a network",
        ), 0.0  # fmt: skip
    try:
        repository = hub.look(name, "model")
    except NotReachable as error:
        return Finding(
            MISSING, what, f"{name}: {here}, and the hub is not reachable ({error})",
            f"`hf download {name}` where there is a network, or copy it into {hub.cache}",
        ), 0.0  # fmt: skip
    except NotThere as error:
        return Finding(
            MISSING, what, f"{name}: {error}",
            "check the name; a private repository needs `hf auth login`",
        ), 0.0  # fmt: skip
    return _downloadable(hub, name, what, here, repository)


def _downloadable(
    hub: Hub, name: str, what: str, here: str, repository: Repository
) -> tuple[Finding, float]:
    if repository.gated and not repository.open:
        login = "" if hub.has_token else ", then log in with `hf auth login` (there is no token)"
        return Finding(
            MISSING, what, f"{name} is gated, and this user has no access",
            f"ask for it on the model's page on the hub{login}",
        ), 0.0  # fmt: skip
    weights = {f: s for f, s in repository.files.items() if f.endswith(".safetensors")}
    if not weights:
        return Finding(
            MISSING, what, f"{name} {PICKLED}",
            "another repository of the same model",
        ), 0.0  # fmt: skip
    size = sum(s or 0 for s in weights.values())
    gated = ", gated, access granted" if repository.gated else ""
    return Finding(OK, what, f"{name}: {here}; {size / 1e9:,.1f} GB to download{gated}"), size


def as_tower(found: Finding) -> Finding:
    """The finding of a text tower's checkpoint, which transformers loads.

    Where its main branch has no safetensors, transformers takes those that the hub's conversion bot
    proposes, if it does.
    """
    found = replace(found, what="text tower")
    if PICKLED not in found.detail:
        return found
    return replace(
        found, state=UNKNOWN, detail=f"{found.detail}, on its main branch",
        remedy="the first load asks the hub for a converted revision; or save the model with "
        "save_pretrained() and name the folder",
    )  # fmt: skip


def absent(find: Find) -> list[str]:
    """The files of a checkpoint that cannot be found; every shard that the index names counts."""
    needed = ["config.json", "tokenizer_config.json"]
    index = find(INDEX)
    if index is not None:
        needed += sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    else:
        needed.append(SINGLE)
    return [name for name in needed if find(name) is None]


def _some(names: list[str], most: int = 4) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
