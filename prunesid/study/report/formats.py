"""A table as CSV, Markdown and one self-contained HTML page."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from prunesid.study.report.templates import render

if TYPE_CHECKING:
    from prunesid.study.report.table import Table, TableCell

OURS = "ours"
DAGGER = "†"


def to_csv(table: Table) -> str:
    """The table as it is seen: a line per row; value, spread and interval of a cell as one text."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["source", "row", *_flat_columns(table)])
    for block in table.blocks:
        for row in block.rows:
            source = block.title or OURS
            writer.writerow([source, row.label, *(_flat(cell) for cell in row.cells)])
    return stream.getvalue()


def to_markdown(table: Table) -> str:
    """A GitHub table with the interval below each value, then the caption."""
    columns = _flat_columns(table)
    lines = [f"### {table.title}", "", f"| | {' | '.join(columns)} |"]
    lines.append(f"|:--|{(':--|' if table.words else '--:|') * len(columns)}")
    for block in table.blocks:
        if block.title:
            lines.append(f"| ***{block.title}*** |{' |' * len(columns)}")
        for row in block.rows:
            lines.append(f"| {row.label} | {' | '.join(_markdown(cell) for cell in row.cells)} |")
    caption = "\n".join(["", *(f"{text}\n" for text in table.caption)])
    facts = f"\n\n#{to_markdown(table.facts).rstrip()}\n" if table.facts else "\n"
    return "\n".join(lines) + facts + caption


def to_html(table: Table) -> str:
    """One page that needs nothing beside itself."""
    return render("table.html", title=table.title, table=table)


def _markdown(cell: TableCell) -> str:
    value = f"**{cell.value}**" if cell.best else cell.value
    small = "".join(f"<br><sub>{t}</sub>" for t in (cell.interval, cell.spread) if t)
    return f"{value}{DAGGER if cell.mark else ''}{small}"


def _flat(cell: TableCell) -> str:
    interval = f"[{cell.interval}]" if cell.interval else ""
    mark = DAGGER if cell.mark else ""
    return " ".join(part for part in (cell.value + mark, cell.spread, interval) if part)


def _flat_columns(table: Table) -> list[str]:
    labels = [label for label, span in table.groups for _ in range(span)]
    return [
        f"{label}: {column}" if label else column
        for label, column in zip(labels, table.columns, strict=True)
    ]
