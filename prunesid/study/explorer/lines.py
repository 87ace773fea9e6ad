"""What a reader chooses: rows of the study's tables, each under the budgets that it ran with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from prunesid.core.files import digest
from prunesid.study.analysis.comparison import ALL, read_comparison
from prunesid.study.analysis.latency import WHOLE, read_latency
from prunesid.study.config.ablation import Ablation, Cell, Setting
from prunesid.study.config.arm import ALL_TOKENS, Arm
from prunesid.study.config.study import Study
from prunesid.study.files.costs import read_costs
from prunesid.study.layout import Layout

BUDGET = "budget"
SHOWN = ("value", "ci_low", "ci_high", "tokens_mean")


def lines_of(study: Study, arms: Sequence[Arm]) -> list[dict[str, Any]]:
    """A line per row and column of every ablation; budgets make no lines, but cells of one line.

    key       names it in a link, whatever else the study has
    ablation  title; `label` as the tables have it; `reference` if others are compared with it
    cells     by budget: `budget` (None: none of its own), `arms` (numbers in `arms`, one per seed),
              `benchmarks` that it ran on, and `table`: {benchmark: `SHOWN` of the comparison}
    """
    layout = Layout.of(study)
    number = {arm.name: place for place, arm in enumerate(arms)}
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for ablation in study.ablations:
        table = _table(read_comparison(layout.comparison(ablation.name)))
        for cell in ablation.cells:
            (row, said), (column, beside) = map(_without_budget, (cell.row, cell.column))
            line = found.setdefault(
                (ablation.name, row, column),
                {
                    "key": f"{ablation.name}-{digest([row, column])[:8]}",
                    "ablation": ablation.title,
                    "label": ", ".join(part for part in (said, beside) if part) or ablation.title,
                    "reference": cell.row == ablation.reference,
                    "cells": [],
                },
            )
            line["cells"].append(_cell(ablation, cell, number, table))
    for line in found.values():
        line["cells"].sort(key=lambda cell: cell[BUDGET] or 0)
    return list(found.values())


def whole_table(study: Study) -> dict[str, list[float | None]]:
    """{benchmark: `SHOWN`} of all tokens."""
    found: dict[str, list[float | None]] = {}
    for ablation in study.ablations:
        table = _table(read_comparison(Layout.of(study).comparison(ablation.name)))
        found |= table[ALL_TOKENS, ALL]
    return found


def times_of(study: Study) -> dict[str, list[float | None]]:
    """{arm: median milliseconds of one request and the ends of its interval}, of clocked arms."""
    found: dict[str, list[float | None]] = {}
    for ablation in study.ablations:
        if ablation.clocked is None:
            continue
        times = read_latency(Layout.of(study).ablation("latency.csv", ablation.name))
        first = times["batch"].min()
        own = times[(times["attention"] == "") & (times["batch"] == first)]
        for line in own[own["what"] == WHOLE].itertuples():
            ends = (line.p50, line.p50_low, line.p50_high)
            found.setdefault(str(line.arm), [_plain(1000 * value) for value in ends])
    return found


def costs_of(study: Study, benchmark: str) -> dict[str, float | None]:
    """{arm: multiply-adds of a question}; None where there is no formula."""
    table = read_costs(Layout.of(study).costs(benchmark))
    return {str(arm): _plain(value) for arm, value in table["total_macs"].items()}


def _cell(
    ablation: Ablation, cell: Cell, number: Mapping[str, int],
    table: Mapping[tuple[str, str], Mapping[str, Any]],
) -> dict[str, Any]:  # fmt: skip
    return {
        "budget": cell.arms[0].budget,
        "arms": [number[arm.name] for arm in cell.arms],
        "benchmarks": list(ablation.benchmarks or ()),
        "table": table[cell.row.key, cell.column.key or ALL],
    }


def _without_budget(setting: Setting) -> tuple[str, str]:
    """A setting's key and label; both '' if it sets nothing but a budget.

    A setting of a budget and more keeps both in its key and label, and so is a line of its own.
    """
    axes = {axis for axis, _ in setting.values}
    return ("", "") if axes <= {BUDGET} else (setting.key, setting.label)


def _table(comparison: pd.DataFrame) -> dict[tuple[str, str], dict[str, list[float | None]]]:
    found: dict[tuple[str, str], dict[str, list[float | None]]] = {}
    for line in comparison.to_dict("records"):
        own = found.setdefault((line["row"], line["column"]), {})
        own[line["benchmark"]] = [_plain(line[name]) for name in SHOWN]
    return found


def _plain(value: float) -> float | None:
    return None if pd.isna(value) else float(value)
