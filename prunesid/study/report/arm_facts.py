"""The arms' tokens and costs as a small table below the main one.

It tells results apart from their reasons: a threshold that suppresses nothing, a budget that is
refilled by score, groups that change from seed to seed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from prunesid.methods.registry import DECODER, ENCODER, FEATURES, QUESTION, place_of
from prunesid.study.analysis.comparison import ALL
from prunesid.study.config.ablation import Ablation, Cell
from prunesid.study.config.arm import VANILLA
from prunesid.study.report.table import Block, Table, TableCell, TableRow, row_colors

UNITS = ("", "k", "M", "G", "T", "P")
# Shown only if an arm drops tokens inside the language model.
INSIDE = ("input_mean", "kv_mean")
# Where a method acts, shown only if the rows differ in it.
ACTS = {ENCODER: "in the encoder", FEATURES: "early", DECODER: "late"}
ACTS[QUESTION] = f"{ACTS[FEATURES]}, by question"
TITLE = "What the arms did with the tokens"


@dataclass(frozen=True)
class Column:
    """`source` is a column of arms.csv or agreement.csv, averaged and then written by `show`."""

    title: str
    source: str
    show: Callable[[float], str]


def count_text(value: float) -> str:
    """A count with three digits and its unit: 412 M, 4.25 T."""
    exponent = 0
    while float(f"{value:.3g}") >= 1000 and exponent < len(UNITS) - 1:
        value, exponent = value / 1000, exponent + 1
    shown = f"{value:#.3g}".rstrip(".") if value else "0"
    return f"{shown} {UNITS[exponent]}".rstrip()


COLUMNS = (
    Column("Tokens", "tokens_mean", lambda v: f"{v:.1f}".removesuffix(".0")),
    Column("Entering", "input_mean", lambda v: f"{v:.1f}".removesuffix(".0")),
    Column("KV entries", "kv_mean", lambda v: f"{v:.1f}".removesuffix(".0")),
    Column("τ", "tau_mean", lambda v: f"{v:.2f}"),
    Column("Suppressed", "suppressed_mean", lambda v: f"{100 * v:.0f} %"),
    Column("Refilled", "refilled_mean", lambda v: f"{v:.1f}"),
    Column("ρ", "rho_mean", lambda v: f"{v:.2f}"),
    Column("Rand, seeds", "between_seeds", lambda v: f"{v:.2f}"),
    Column("Rand, reference", "with_reference", lambda v: f"{v:.2f}"),
    Column("Encoder", "encoder_macs", count_text),
    Column("Selection", "selection_macs", count_text),
    Column("LLM", "llm_macs", count_text),
    Column("Total", "total_macs", count_text),
)


def read_facts(path: Path) -> pd.DataFrame:
    """arms.csv or agreement.csv: names as text, numbers as numbers."""
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    for name in table.columns.difference(["arm", "benchmark", "row", "column"]):
        table[name] = pd.to_numeric(table[name])
    return table


def facts_table(
    arms: pd.DataFrame, agreement: pd.DataFrame | None, ablation: Ablation
) -> Table | None:
    """The table of arms.csv and agreement.csv (see `stages.arms`), a block per column.

    Means over benchmarks and seeds; what no arm has is left out. None where every arm keeps exactly
    its budget and there is nothing else to tell.
    """
    values = {(c.row.key, c.column.key): _values(arms, agreement, c) for c in ablation.cells}
    acts = {(c.row.key, c.column.key): _place(c) for c in ablation.cells}
    several = len(set(acts.values()) - {""}) > 1
    shown = [column for column in COLUMNS if any(_tells(own, column) for own in values.values())]
    exact = all(
        own["tokens_min"].min() == own["tokens_max"].max() == cell.arms[0].budget
        for cell, own in zip(ablation.cells, values.values(), strict=True)
    )
    if len(shown) == 1 and exact:
        return None
    shades = row_colors(ablation)
    blocks = []
    for column in ablation.columns:
        rows = []
        for row in ablation.rows:
            place = row.key, column.key
            if place in values:
                first = [TableCell(acts[place])] if several else []
                cells = (*first, *(_cell(values[place], each) for each in shown))
                rows.append(TableRow(row.label, cells, shades.get(row.key)))
        blocks.append(Block("facts", column.label if column.values else "", tuple(rows)))
    titles = (*(("Acts",) if several else ()), *(column.title for column in shown))
    return Table(TITLE, (("", len(titles)),), titles, tuple(blocks), ())


def _place(cell: Cell) -> str:
    """The place where the arms of a cell act on the tokens; '' for the one that keeps all."""
    arm = cell.arms[0]
    return "" if arm.is_vanilla else ACTS[place_of(arm.method)]


def _values(arms: pd.DataFrame, agreement: pd.DataFrame | None, cell: Cell) -> pd.DataFrame:
    """The lines of both files that belong to a cell, one below the other."""
    names = {arm.name for arm in cell.arms if arm != VANILLA}
    own = arms[arms["arm"].isin(names or {VANILLA.name})]
    if agreement is None:
        agreement = pd.DataFrame(columns=["row", "column", "between_seeds", "with_reference"])
    place = (agreement["row"] == cell.row.key) & (agreement["column"] == (cell.column.key or ALL))
    return pd.concat([own, agreement.loc[place, ["between_seeds", "with_reference"]]])


def _tells(own: pd.DataFrame, column: Column) -> bool:
    if column.source in INSIDE:
        # All that enters the language model stays in it, unless an arm drops tokens inside.
        return bool((own["input_mean"] - own["tokens_mean"]).abs().gt(1e-6).any())
    return bool(own[column.source].notna().any())


def _cell(own: pd.DataFrame, column: Column) -> TableCell:
    value = own[column.source].mean()
    if pd.isna(value):
        return TableCell()
    if column.source == "total_macs" and own[["encoder_macs", "selection_macs"]].isna().all().any():
        return TableCell(f"≥ {column.show(float(value))}")
    span = ""
    if column.source == "tokens_mean":
        low, high = own["tokens_min"].min(), own["tokens_max"].max()
        span = "" if low == high else f"{low:g}–{high:g}"
    return TableCell(column.show(float(value)), span)
