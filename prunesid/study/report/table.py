"""The table of an ablation in the form of the paper's tables 5, 6 and 7.

Rows are the ablation's rows and the all-token arm; columns are its columns x benchmarks, and the
average relative to all tokens, once (table 5) or per column (tables 6 and 7). Below stand the
differences from the reference row (the deltas of table 7) and, with dynamic budgets, the spread of
the information score. The paper's printed numbers follow, clearly apart. They are of another model
on other benchmarks: compare the order of rows, not the values. A second table tells what the arms
did.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import isnan
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from prunesid.core.files import atomic
from prunesid.study.analysis.association import spreads
from prunesid.study.analysis.comparison import ALL, AVERAGE, OVERALL
from prunesid.study.analysis.metrics import digits, statistic
from prunesid.study.config.ablation import Ablation, Setting
from prunesid.study.config.arm import ALL_TOKENS, text
from prunesid.study.report import caption, formats, latex, theme
from prunesid.study.report.figures import Subject
from prunesid.study.report.paper import Paper

LEVEL = 0.05
WHOLE = "100"
# The kinds of figures in which color stands for `figure.hue`.
HUED = ("lines", "layers")
WRITERS = {
    ".csv": formats.to_csv,
    ".md": formats.to_markdown,
    ".html": formats.to_html,
    ".tex": latex.to_latex,
}

Line = dict[Hashable, Any]
Lines = dict[tuple[str, str, str], Line]


@dataclass(frozen=True)
class TableCell:
    """The texts of one cell; `mark` flags a difference from the reference that holds after Holm."""

    value: str = ""
    interval: str = ""
    spread: str = ""
    mark: bool = False
    best: bool = False


# Under a column that the ablation leaves a row out of.
NOT_RUN = TableCell("–")


@dataclass(frozen=True)
class TableRow:
    label: str
    cells: tuple[TableCell, ...]
    color: str | None = None


@dataclass(frozen=True)
class Block:
    """Rows under one heading.

    `kind` is 'ours', 'difference', 'information', 'paper', 'paper_difference' or 'facts'.
    """

    kind: str
    title: str
    rows: tuple[TableRow, ...]


@dataclass(frozen=True)
class Table:
    """`groups` are the upper headings and how many columns each spans, `columns` the lower ones.

    `facts` is a smaller table that belongs to this one; `words` says that the cells are texts.
    """

    title: str
    groups: tuple[tuple[str, int], ...]
    columns: tuple[str, ...]
    blocks: tuple[Block, ...]
    caption: tuple[str, ...]
    facts: Table | None = None
    words: bool = False

    @property
    def starts(self) -> set[int]:
        """The columns that open a group."""
        return set(accumulate((span for _, span in self.groups[:-1]), initial=0))


class _Slot(NamedTuple):
    """One column of the table: a benchmark (or the average) under a column of the ablation."""

    column: str
    benchmark: str


def build_table(subject: Subject, paper: Paper | None = None, facts: Table | None = None) -> Table:
    """The table of a subject; the spread of phi is shown where the budget is dynamic.

    facts  from `arm_facts.facts_table`
    """
    ablation = subject.ablation
    lines = lines_of(subject.comparison)
    slots, groups = _layout(subject)
    titles = subject.titles | {AVERAGE: "Avg."}
    blocks = [
        _ours(lines, ablation, slots),
        _differences(lines, ablation, slots),
        *_information(subject, slots),
        *(_printed(subject, slots, paper) if paper else ()),
    ]
    return Table(
        title=ablation.title,
        groups=groups,
        columns=tuple(titles[slot.benchmark] for slot in slots),
        blocks=tuple(block for block in blocks if block.rows),
        caption=caption.paragraphs(subject, paper, facts.columns if facts else ()),
        facts=facts,
    )


def lines_of(comparison: pd.DataFrame) -> Lines:
    """The lines of a comparison by row, column and benchmark."""
    return {(r["row"], r["column"], r["benchmark"]): r for r in comparison.to_dict("records")}


def write_table(table: Table, paths: Sequence[Path]) -> None:
    """Write the table to every path by its suffix, one of `WRITERS`; atomic, no date inside."""
    for path in paths:
        if path.suffix not in WRITERS:
            raise ValueError(f"{path}: tables are written as {', '.join(WRITERS)}")
        with atomic(path) as part:
            part.write_text(WRITERS[path.suffix](table), encoding="utf-8", newline="\n")


def _layout(subject: Subject) -> tuple[list[_Slot], tuple[tuple[str, int], ...]]:
    """The columns of the table, and the headings of groups of them."""
    ablation = subject.ablation
    each = ablation.table.average == "column" or len(ablation.columns) == 1
    names = [*subject.titles, AVERAGE] if each else list(subject.titles)
    slots = [_Slot(c.key or ALL, name) for c in ablation.columns for name in names]
    groups = [(_heading(c), len(names)) for c in ablation.columns]
    if not each:
        slots.append(_Slot(OVERALL, AVERAGE))
        groups.append(("", 1))
    return slots, tuple(groups)


def _heading(column: Setting) -> str:
    if not column.values:
        return ""
    return f"Retain {column.label}" if set(column.as_dict()) == {"budget"} else column.label


def _ours(lines: Lines, ablation: Ablation, slots: Sequence[_Slot]) -> Block:
    shades, rows = row_colors(ablation), ablation.rows
    own = {row: [lines.get((row.key, *slot)) for slot in slots] for row in rows}
    best = [
        max(line["value"] for line in under if line) for under in zip(*own.values(), strict=True)
    ]
    tokens = max(line["tokens_max"] for key, line in lines.items() if key[0] == ALL_TOKENS)
    whole = tuple(
        TableCell(WHOLE) if name == AVERAGE else value_cell(lines[ALL_TOKENS, ALL, name])
        for _, name in slots
    )
    shown = [TableRow(f"all {tokens:g} tokens", whole, theme.INK if shades else None)]
    for row, found in own.items():
        cells = (
            value_cell(line, line["value"] == highest and len(rows) > 1) if line else NOT_RUN
            for line, highest in zip(found, best, strict=True)
        )
        shown.append(TableRow(row.label, tuple(cells), shades.get(row.key)))
    return Block("ours", "", tuple(shown))


def row_colors(ablation: Ablation) -> dict[str, str]:
    """The color that the ablation's figure gives to each row, where color shows rows."""
    hue = ablation.figure.hue
    if ablation.figure.kind not in HUED:
        return {}
    if hue == "row":
        values = {row.key: row.key for row in ablation.rows}
    elif all(set(row.as_dict()) == {hue} for row in ablation.rows):
        values = {row.key: text(row.as_dict()[hue]) for row in ablation.rows}
    else:
        return {}
    shades = theme.colors(list(values.values()))
    return {key: shades[value] for key, value in values.items()}


def _differences(lines: Lines, ablation: Ablation, slots: Sequence[_Slot]) -> Block:
    shades = row_colors(ablation)
    rows = []
    for row in (row for row in ablation.rows if row != ablation.reference):
        found = (lines.get((row.key, *slot)) for slot in slots)
        cells = (difference_cell(line) if line else NOT_RUN for line in found)
        rows.append(TableRow(row.label, tuple(cells), shades.get(row.key)))
    return Block("difference", f"Difference from {ablation.reference.label}", tuple(rows))


def _information(subject: Subject, slots: Sequence[_Slot]) -> list[Block]:
    """The spread of phi over the images of each benchmark, which dynamic budgets depend on."""
    if subject.information is None or not any(arm.dynamic for arm in subject.ablation.arms):
        return []
    known = spreads(subject.information, subject.bootstrap)

    def cell(benchmark: str, name: str) -> TableCell:
        if benchmark not in known:
            return TableCell()
        value, low, high = (getattr(known[benchmark], name + end) for end in ("", "_low", "_high"))
        return TableCell(f"{value:.3f}", f"{low:.3f}–{high:.3f}")

    rows = tuple(
        TableRow(label, tuple(cell(slot.benchmark, name) for slot in slots))
        for label, name in (("mean", "mean"), ("standard deviation", "std"))
    )
    return [Block("information", "Information score φ of the images", rows)]


def _printed(subject: Subject, slots: Sequence[_Slot], paper: Paper) -> tuple[Block, ...]:
    """The paper's numbers, and their differences from its number for the reference row."""
    ablation = subject.ablation
    columns = {b.name: b.paper_column for b in subject.benchmarks} | {AVERAGE: AVERAGE}
    places = {b.name: digits(statistic(b.statistic).unit) for b in subject.benchmarks}
    places[AVERAGE] = 1
    cells = {(cell.row.key, cell.column.key or ALL): cell for cell in ablation.cells}

    def number(row: Setting, slot: _Slot) -> float | None:
        whole = slot.column == OVERALL
        cell = cells.get((row.key, ablation.columns[0].key or ALL if whole else slot.column))
        column = columns[slot.benchmark]
        return paper.printed(ablation, cell, column, whole) if column and cell else None

    def shown(slot: _Slot, value: float | None) -> TableCell:
        return TableCell("" if value is None else f"{value:.{places[slot.benchmark]}f}")

    def difference(slot: _Slot, value: float | None, other: float | None) -> TableCell:
        if value is None or other is None:
            return TableCell()
        return TableCell(signed(value - other, places[slot.benchmark]))

    found = {row: [number(row, slot) for slot in slots] for row in ablation.rows}
    found = {row: values for row, values in found.items() if any(v is not None for v in values)}
    if not found:
        return ()
    top = tuple(
        TableCell(WHOLE)
        if slot.benchmark == AVERAGE
        else shown(slot, paper.all_tokens(ablation, columns[slot.benchmark] or ""))
        for slot in slots
    )
    printed = [TableRow(f"all {paper.token_count(ablation)} tokens", top)]
    deltas = []
    reference = found.get(ablation.reference, [None] * len(slots))
    for row, values in found.items():
        printed.append(TableRow(row.label, tuple(map(shown, slots, values))))
        change = tuple(map(difference, slots, values, reference))
        if values != reference and any(cell.value for cell in change):
            deltas.append(TableRow(row.label, change))
    name = f"Paper, table {ablation.table.paper_table}"
    title = f"{name}: {paper.model_of(ablation)}, its own benchmarks"
    against = f"{name}: difference from {ablation.reference.label}"
    return Block("paper", title, tuple(printed)), Block("paper_difference", against, tuple(deltas))


def value_cell(line: Line, best: bool = False) -> TableCell:
    """A value with its interval and the spread over seeds."""
    places = digits(line["unit"])
    interval = f"{line['ci_low']:.{places}f}–{line['ci_high']:.{places}f}"
    spread = "" if isnan(line["spread"]) else f"±{line['spread']:.{places}f}"
    return TableCell(f"{line['value']:.{places}f}", interval, spread, best=best)


def difference_cell(line: Line) -> TableCell:
    """The difference from the reference with its interval; marked where it holds after Holm."""
    places = digits(line["unit"])
    low, high = (signed(line[name], places) for name in ("diff_low", "diff_high"))
    mark = bool(line["p_holm"] < LEVEL)
    return TableCell(signed(line["diff"], places), f"{low} to {high}", mark=mark)


def signed(value: float, places: int) -> str:
    """A difference with its sign; no sign for what is 0 as shown."""
    shown = f"{value:+.{places}f}".replace("-", "−")
    return shown[1:] if float(f"{value:.{places}f}") == 0 else shown
