"""Which tokens each arm keeps: no model, no question, only the features."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from prunesid import methods
from prunesid.answering.store import Store
from prunesid.files import atomic, digest
from prunesid.groupings import GROUPINGS
from prunesid.record import PLACE, Kept, cat_padded
from prunesid.records import Records, whole_index
from prunesid.scores import SCORES
from prunesid.stages.budgets import Budgets
from prunesid.stages.features import read_features
from prunesid.stages.material import selection_material
from prunesid.study.arm import Arm

_PLACE = f"info.{PLACE}"


def save_kept(kept: Kept, path: Path, *, copies: bool = True) -> None:
    """Write index, count and info. Tokens are written only where they are no copy of a patch.

    copies  whether tokens with an index are the features of that patch; not so after a pass of their
            own through the encoder
    """
    tensors = {"index": kept.index, "count": kept.count}
    tensors |= {f"info.{key}": value for key, value in kept.info.items()}
    made = kept.mask & (kept.index < 0)
    if not copies:
        tensors["tokens"] = kept.tokens
    elif bool(made.any()):
        tensors["made"] = kept.tokens[made]
    save_file({key: value.contiguous() for key, value in tensors.items()}, path)


def load_kept(path: Path, records: Records) -> Kept:
    """What `save_kept` wrote, its tokens taken from the features of `records` (R rows)."""
    tensors = load_file(path)
    index, count = tensors["index"], tensors["count"]
    tokens = tensors["tokens"] if "tokens" in tensors else records.gather(index)
    kept = Kept(
        tokens, index, count,
        {k.removeprefix("info."): v for k, v in tensors.items() if k.startswith("info.")},
    )  # fmt: skip
    if "made" in tensors:
        tokens[kept.mask & (index < 0)] = tensors["made"]
    return kept


def load_facts(paths: Sequence[Path]) -> dict[str, torch.Tensor]:
    """The count and the info (B, ...) of what `save_kept` wrote for the shards of a benchmark."""
    parts = [load_file(path) for path in paths]
    return {
        name.removeprefix("info."): cat_padded([part[name] for part in parts])
        for name in parts[0] if name.startswith("info.") or name == "count"
    }  # fmt: skip


def kept_digest(path: Path) -> str:
    """Digest of the tokens kept and their places, whatever chose them: equal ones, equal answers."""
    return _digest(load_file(path))


def whole_digest(sizes: Sequence[int]) -> str:
    """The `kept_digest` of keeping every patch of crops of these sizes in its place."""
    index, count = whole_index(sizes)
    return _digest({"index": index, "count": count})


def _digest(tensors: Mapping[str, torch.Tensor]) -> str:
    return digest({
        key: hashlib.sha256(value.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()
        for key, value in tensors.items() if not key.startswith("info.") or key == _PLACE
    })  # fmt: skip


def modules_of(arm: Arm) -> list[str]:
    """The modules that hold the arm's method, grouping and score: an edit to another is no matter."""
    resolved = arm.resolved()
    found = methods.modules_of(arm.method)
    # Another method may use the same word for a choice of its own.
    for parameter, registry in (("grouping", GROUPINGS), ("score", SCORES)):
        if resolved.get(parameter) in registry.names():
            found += registry.modules_of(resolved[parameter])
    return found


def _named(arm: Arm, budget: int | Mapping[str, int]) -> dict[str, Any]:
    # What the arm leaves at its default is not named: the code's digest covers it, and a parameter
    # that the library gains later renames nothing.
    named = {
        "method": arm.method,
        "budget": arm.budget,
        "seed": arm.seed,
        "params": dict(arm.params),
    }
    if not isinstance(budget, int):
        named |= {"dynamic": arm.dynamic, "budgets": digest(list(budget.values()))}
    return named


def budget_of(arm: Arm, names: Sequence[str], budgets: Budgets) -> int | dict[str, int]:
    """The arm's budget for `Records.compress`: one number, or {input: tokens} where it is dynamic.

    ValueError where the arm keeps all tokens, or `budgets` lacks its rule or one of the inputs.
    """
    if arm.budget is None:
        raise ValueError(f"arm {arm.name!r} keeps all tokens; there is nothing to select")
    if arm.dynamic is None:
        return arm.budget
    shared = budgets.get((arm.dynamic, arm.budget), {})
    lacking = [name for name in names if name not in shared]
    if lacking or not shared:
        raise ValueError(
            f"arm {arm.name!r} has no budget for {len(lacking)} of {len(names)} images, "
            f"such as {', '.join(lacking[:3])}"
        )
    return {name: shared[name] for name in names}


def material_of(
    arm: Arm, budget: int | Mapping[str, int], features: Mapping[str, Any]
) -> dict[str, Any]:
    """What determines the tokens that an arm keeps; `features` is the features' own material."""
    return selection_material(_named(arm, budget), dict(features), modules_of(arm))


def select_arms(
    features: Path,
    arms: Sequence[Arm],
    store: Store,
    output: Path,
    budgets: Budgets | None = None,
    encoded: Path | None = None,
) -> None:
    """Select and store what is missing, then write {arm: key} as JSON; {} where there is no input.

    budgets  of the benchmark (`budgets.read_budgets`), for arms with a dynamic one
    encoded  of `encoding.encode_arms`, for arms with an encoder pass of their own
    """
    records, material = read_features(features)
    keys: dict[str, str] = {} if encoded is None else read_keys(encoded)
    chosen = [arm for arm in arms if arm.selects and not arm.encodes and records.inputs]
    bar = tqdm(chosen, desc="selecting", unit="arm")
    for arm in bar:
        budget = budget_of(arm, records.names, budgets or {})
        determined = material_of(arm, budget, material)
        keys[arm.name] = Store.key(determined)
        if keys[arm.name] not in store:
            bar.set_postfix_str(arm.name)
            begun = time.perf_counter()
            kept = records.compress(arm.method, budget=budget, seed=arm.seed, **arm.params)
            cost = {"seconds": time.perf_counter() - begun, "images": len(records.inputs)}
            store.put(determined, partial(save_kept, kept), suffix=".safetensors", cost=cost)
    write_keys(keys, output)


def write_keys(keys: Mapping[str, str], output: Path) -> None:
    """{arm: key of the store} as JSON."""
    with atomic(output) as temporary:
        temporary.write_text(json.dumps(dict(keys), indent=1) + "\n")


def read_keys(path: Path) -> dict[str, str]:
    """What `write_keys` wrote."""
    return json.loads(path.read_text())


def read_shards(paths: Sequence[Path]) -> dict[str, list[str]]:
    """{arm: its keys}, one for every shard that has inputs; `paths` are the shards' tables of keys."""
    found: dict[str, list[str]] = {}
    for path in paths:
        for arm, key in read_keys(path).items():
            found.setdefault(arm, []).append(key)
    return found
