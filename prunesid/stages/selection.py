"""Which tokens each arm keeps: no model, no question, only the features."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from prunesid import groupings, methods, scores
from prunesid.answering.store import Store
from prunesid.files import atomic, digest
from prunesid.record import Kept, VisionRecord
from prunesid.stages.features import read_features
from prunesid.stages.material import selection_material
from prunesid.study.arm import Arm


def save_kept(kept: Kept, path: Path) -> None:
    """Write index, count and info. Tokens are written only where they are no copy of a patch."""
    tensors = {"index": kept.index, "count": kept.count}
    tensors |= {f"info.{key}": value for key, value in kept.info.items()}
    made = kept.mask & (kept.index < 0)
    if bool(made.any()):
        tensors["made"] = kept.tokens[made]
    save_file({key: value.contiguous() for key, value in tensors.items()}, path)


def load_kept(path: Path, features: torch.Tensor) -> Kept:
    """What `save_kept` wrote, its tokens taken from `features` (B, T, D)."""
    tensors = load_file(path)
    index, count = tensors["index"], tensors["count"]
    tokens = features.gather(1, index.clamp(min=0)[..., None].expand(-1, -1, features.shape[2]))
    tokens = tokens.masked_fill((index < 0)[..., None], 0)
    kept = Kept(
        tokens, index, count,
        {k.removeprefix("info."): v for k, v in tensors.items() if k.startswith("info.")},
    )  # fmt: skip
    if "made" in tensors:
        tokens[kept.mask & (index < 0)] = tensors["made"]
    return kept


def kept_digest(path: Path) -> str:
    """Digest of the tokens kept, whatever chose them: equal selections have equal answers."""
    tensors = load_file(path)
    return digest({
        key: hashlib.sha256(value.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()
        for key, value in tensors.items() if not key.startswith("info.")
    })  # fmt: skip


def modules_of(arm: Arm) -> list[str]:
    """The modules that hold the arm's method, grouping and score: an edit to another is no matter."""
    resolved = arm.resolved()
    found = [methods.module_of(arm.method)]
    if "grouping" in resolved:
        found.append(groupings.module_of(resolved["grouping"]))
    if "score" in resolved:
        found.append(scores.module_of(resolved["score"]))
    return found


def _named(arm: Arm) -> dict[str, Any]:
    # What the arm leaves at its default is not named: the code's digest covers it, and a parameter
    # that the library gains later renames nothing.
    return {
        "method": arm.method, "budget": arm.budget, "seed": arm.seed, "params": dict(arm.params)
    }  # fmt: skip


def select(record: VisionRecord, arm: Arm) -> Kept:
    """The tokens that an arm keeps of every image."""
    if arm.budget is None:
        raise ValueError(f"arm {arm.name!r} keeps all tokens; there is nothing to select")
    return methods.compress(record, arm.method, budget=arm.budget, seed=arm.seed, **arm.params)


def select_arms(features: Path, arms: Sequence[Arm], store: Store, output: Path) -> None:
    """Select and store what is missing, then write {arm: key} as JSON."""
    record, material = read_features(features)
    keys: dict[str, str] = {}
    chosen = [arm for arm in arms if not arm.is_vanilla]
    bar = tqdm(chosen, desc="selecting", unit="arm")
    for arm in bar:
        determined = selection_material(_named(arm), material, modules_of(arm))
        keys[arm.name] = Store.key(determined)
        if keys[arm.name] not in store:
            bar.set_postfix_str(arm.name)
            store.put(determined, partial(save_kept, select(record, arm)), suffix=".safetensors")
    write_keys(keys, output)


def write_keys(keys: Mapping[str, str], output: Path) -> None:
    """{arm: key of the store} as JSON."""
    with atomic(output) as temporary:
        temporary.write_text(json.dumps(dict(keys), indent=1) + "\n")


def read_keys(path: Path) -> dict[str, Any]:
    """What `write_keys` wrote."""
    return json.loads(path.read_text())
