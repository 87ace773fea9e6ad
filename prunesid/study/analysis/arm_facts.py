"""Facts of each arm of an ablation: its tokens before the language model and inside it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from prunesid.study.analysis.agreement import adjusted_rand
from prunesid.study.analysis.comparison import ALL, write_csv
from prunesid.study.analysis.metrics import Floats
from prunesid.study.config.ablation import Ablation
from prunesid.study.config.arm import ALL_TOKENS
from prunesid.study.files.costs import COLUMNS as ACCOUNT_COLUMNS
from prunesid.study.files.costs import read_costs
from prunesid.study.files.kept_info import load_info
from prunesid.study.provenance.store import Store
from prunesid.study.provenance.tables import read_shards

MEANS = ("tau", "suppressed", "survivors", "refilled", "rho")
ARM_COLUMNS = (
    "arm", "benchmark", "tokens_mean", "tokens_min", "tokens_max", "input_mean",
    *(f"{m}_mean" for m in MEANS), *ACCOUNT_COLUMNS,
)  # fmt: skip
AGREEMENT_COLUMNS = ("row", "column", "benchmark", "arms", "between_seeds", "with_reference")

Facts = Mapping[str, NDArray[Any]]


def write_arms(
    ablation: Ablation,
    scores: pd.DataFrame,
    selections: Mapping[str, Sequence[Path]],
    costs: Mapping[str, Path],
    store: Store,
    arms: Path,
    agreement: Path,
) -> None:
    """Write two CSV files of an ablation, `arms` and `agreement`.

    scores      columns benchmark, arm, image_id and tokens, which counts what really entered
    selections  the tables of keys of the shards of each benchmark
    costs       the table of costs of each benchmark
    arms        a line per arm and benchmark. Visual tokens per image in a layer of the language
                model are averaged over layers; then follow mean, min and max over images.
                `input_mean` counts the tokens that enter the first layer. The means over images of
                tau, suppressed (share of T), survivors and refilled (tokens) and rho are empty
                where the method has none. Last come the columns of `costs.write_costs`
    agreement   a line per row, column and benchmark: the adjusted Rand index of the groups,
                averaged over images. `between_seeds` compares pairs of seeds, `with_reference` the
                row's arms with the reference row's in that column. Only where there are groups to
                compare, of images or of questions in both
    """
    lines: list[dict[str, Any]] = []
    comparisons: list[dict[str, Any]] = []
    for benchmark, paths in selections.items():
        keys = read_shards(paths)
        whole = _tokens(scores, benchmark, ALL_TOKENS)
        found: dict[str, Facts] = {}
        for arm in ablation.arms:
            # Count what entered the model: newlines and class tokens may add to what was kept.
            facts = {"count": _tokens(scores, benchmark, arm.name)}
            if arm.selects:
                facts = load_info([store.get(key) for key in keys[arm.name]]) | facts
            elif arm.is_late:
                facts["input"] = whole
            found[arm.name] = facts
        spent = read_costs(costs[benchmark])
        lines += [
            {"arm": name, "benchmark": benchmark} | _means(facts) | spent.loc[name].to_dict()
            for name, facts in found.items()
        ]
        comparisons += [line | {"benchmark": benchmark} for line in _agreement(ablation, found)]
    write_csv(pd.DataFrame(lines, columns=list(ARM_COLUMNS)), arms)
    write_csv(pd.DataFrame(comparisons, columns=list(AGREEMENT_COLUMNS)), agreement)


def _tokens(scores: pd.DataFrame, benchmark: str, arm: str) -> Floats:
    """(images,) float64 mean over the questions of an image."""
    own = scores[(scores["benchmark"] == benchmark) & (scores["arm"] == arm)]
    return own.groupby("image_id")["tokens"].mean().to_numpy(np.float64)


def _means(facts: Facts) -> dict[str, float]:
    count = facts["count"]
    found = {"tokens_mean": count.mean(), "tokens_min": count.min(), "tokens_max": count.max()}
    found["input_mean"] = facts.get("input", count).mean()
    found |= {f"{name}_mean": facts[name].mean(dtype=np.float64) for name in MEANS if name in facts}
    return {name: float(value) for name, value in found.items()}


def _agreement(ablation: Ablation, facts: Mapping[str, Facts]) -> Iterator[dict[str, Any]]:
    """The lines of one benchmark."""
    cells = {(cell.row, cell.column): cell for cell in ablation.cells}
    for cell in ablation.cells:
        rival = cells[ablation.reference, cell.column]
        own, reference = (
            [facts[arm.name]["group"] for arm in each.arms if "group" in facts[arm.name]]
            for each in (cell, rival)
        )
        if {bool(arm.asked) for arm in (*cell.arms, *rival.arms)} == {False, True}:
            reference = []
        seeds = _mean_index(itertools.combinations(own, 2))
        versus = _mean_index(itertools.product(own, reference)) if cell is not rival else None
        if seeds is not None or versus is not None:
            place = {"row": cell.row.key, "column": cell.column.key or ALL, "arms": len(own)}
            yield place | {"between_seeds": seeds, "with_reference": versus}


def _mean_index(pairs: Iterable[tuple[NDArray[Any], NDArray[Any]]]) -> float | None:
    indices = [adjusted_rand(*pair) for pair in pairs]
    return float(np.concatenate(indices).mean()) if indices else None
