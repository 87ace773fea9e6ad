"""The tokens that each arm keeps, from the features and for some arms the questions."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from prunesid.core.faults import blamed
from prunesid.core.files import digest
from prunesid.core.memory import Halving
from prunesid.core.record import OPTIONAL, Kept
from prunesid.images.relevance import owners, reading
from prunesid.methods import features as methods
from prunesid.study.files.features import (
    Head,
    hidden_fields,
    layers_of,
    read_features,
    read_head,
)
from prunesid.study.files.kept import save_kept
from prunesid.study.files.questions import Questions, read_questions
from prunesid.study.provenance.code import code_of
from prunesid.study.provenance.store import Store
from prunesid.study.provenance.tables import read_keys, write_keys
from prunesid.study.stages.device import device_slot, room

if TYPE_CHECKING:
    from prunesid.study.config.arm import Arm
    from prunesid.study.stages.budgets import Budgets

AT_ONCE = 16


def _fields(arm: Arm, text_tower: str | None) -> list[str]:
    """The fields that the arm's method reads beside the features."""
    needs = reading(methods.requirements_in_crops(arm.method, **arm.params), text_tower)
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
    if arm.crops:
        named["crops"] = dict(arm.crops)
    return named


def budget_of(arm: Arm, names: Sequence[str], budgets: Budgets) -> int | dict[str, int]:
    """The arm's budget for `ImageRecords.compress`: a number, or {input: tokens} if it is dynamic.

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
    arm: Arm, budget: int | Mapping[str, int], features: Head, questions: Questions | None = None
) -> dict[str, Any]:
    """The key of the tokens that an arm keeps.

    questions  for an arm that chooses by image and question; ValueError for one without them
    """
    named = _named(arm, budget)
    if arm.asked:
        if questions is None:
            raise ValueError(f"arm {arm.name!r} chooses by image and question; none are given")
        named |= questions.material(arm)
    return {
        "stage": "select",
        "arm": named,
        "features": features.identity(
            _fields(arm, None if questions is None else questions.text_tower)
        ),
        "code": code_of("select", [arm]),
    }


def select_arms(
    features: Path,
    arms: Sequence[Arm],
    store: Store,
    output: Path,
    budgets: Budgets | None = None,
    encoded: Path | None = None,
    questions: Path | None = None,
    device: str = "cpu",
) -> None:
    """Select and store what is missing, then write {arm: key} as JSON; {} where there is no input.

    Images go to the `device` a few at a time, with what the arm's method reads of them.

    budgets    the benchmark's (`budgets.read_budgets`), for arms with a dynamic budget
    encoded    table of `encoding.encode_arms`, for arms with an encoder pass of their own
    questions  file of `questions.write_questions`, for arms that choose by image and question
    """
    head = read_head(features)
    asked = None if questions is None else read_questions(questions)
    names = tuple(head.inputs)
    keys: dict[str, str] = {} if encoded is None else read_keys(encoded)
    todo: list[tuple[Arm, int | dict[str, int], dict[str, Any]]] = []
    for arm in arms:
        if arm.selects and not arm.encodes and names:
            budget = budget_of(arm, names, budgets or {})
            determined = material_of(arm, budget, head, asked)
            keys[arm.name] = Store.key(determined)
            if keys[arm.name] not in store:
                todo.append((arm, budget, determined))
    if todo:
        halving = Halving("images to choose tokens of")
        with device_slot(device) as own, room(f"choosing tokens of {features}", own):
            bar = tqdm(todo, desc="selecting", unit="arm")
            for arm, budget, determined in bar:
                bar.set_postfix_str(arm.name)
                begun = time.perf_counter()
                by_question = asked if arm.asked else None
                kept = _select(arm, budget, features, by_question, own, halving)
                whose = () if by_question is None else by_question.asked_rows(head.inputs)
                cost = {"seconds": time.perf_counter() - begun, "images": len(whose or names)}
                write = partial(save_kept, kept, asked=whose)
                store.put(determined, write, suffix=".safetensors", cost=cost)
    write_keys(keys, output)


def _select(
    arm: Arm, budget: int | Mapping[str, int], features: Path, asked: Questions | None, device: str,
    halving: Halving,
) -> Kept:  # fmt: skip
    """The tokens that an arm keeps of each image, or for each question in their order."""
    names = _fields(arm, None if asked is None else asked.text_tower)
    # CLS goes before the patches in some layouts, whatever the method reads.
    records, _ = read_features(features, layers=layers_of(names), fields={*names, "cls"})
    records = records.choosing(arm.crops)
    whose = {name: name for name in records.names} if asked is None else owners(asked.prompts)

    def select(names: Sequence[str]) -> Kept:
        some = {name: whose[name] for name in names}
        part = records.only(dict.fromkeys(some.values())).to(device)
        if asked is not None:
            encoder = asked.encoder(arm)
            part = part.asked(some, asked.vectors[encoder], encoder)
        own = budget if isinstance(budget, int) else {n: budget[image] for n, image in some.items()}
        with blamed(lambda _: f"arm {arm.name!r}"):
            found = part.compress(arm.method, budget=own, seed=arm.seed, **arm.params)
        return found.to("cpu")

    # A few at a time; each question holds the features of its image.
    rows, kept = list(whose), list[Kept]()
    for start in range(0, len(whose), AT_ONCE):
        kept += halving.run(rows[start : start + AT_ONCE], select)
    return Kept.cat(kept)
