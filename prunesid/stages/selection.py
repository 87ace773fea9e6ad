"""Which tokens each arm keeps: no model, no question, only the features."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from prunesid import methods
from prunesid.answering.store import Store
from prunesid.files import digest
from prunesid.record import OPTIONAL
from prunesid.stages.code import code_of
from prunesid.stages.feature_file import Head, hidden_fields, read_features
from prunesid.stages.kept_file import save_kept
from prunesid.stages.keys import read_keys, write_keys

if TYPE_CHECKING:
    from prunesid.stages.budgets import Budgets
    from prunesid.study.arm import Arm


def _fields(arm: Arm) -> list[str]:
    """What the arm's method reads beside the features."""
    needs = methods.requirements_in_crops(arm.method, **arm.params)
    return [name for name in OPTIONAL if getattr(needs, name)] + hidden_fields(needs.layers)


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


def material_of(arm: Arm, budget: int | Mapping[str, int], features: Head) -> dict[str, Any]:
    """What determines the tokens that an arm keeps."""
    return {
        "stage": "select",
        "arm": _named(arm, budget),
        "features": features.identity(_fields(arm)),
        "code": code_of("select", [arm]),
    }


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
    records, head = read_features(features)
    keys: dict[str, str] = {} if encoded is None else read_keys(encoded)
    chosen = [arm for arm in arms if arm.selects and not arm.encodes and records.inputs]
    bar = tqdm(chosen, desc="selecting", unit="arm")
    for arm in bar:
        budget = budget_of(arm, records.names, budgets or {})
        determined = material_of(arm, budget, head)
        keys[arm.name] = Store.key(determined)
        if keys[arm.name] not in store:
            bar.set_postfix_str(arm.name)
            begun = time.perf_counter()
            kept = records.compress(arm.method, budget=budget, seed=arm.seed, **arm.params)
            cost = {"seconds": time.perf_counter() - begun, "images": len(records.inputs)}
            store.put(determined, partial(save_kept, kept), suffix=".safetensors", cost=cost)
    write_keys(keys, output)
