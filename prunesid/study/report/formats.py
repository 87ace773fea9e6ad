"""A table as CSV, Markdown and one self-contained HTML page."""

from __future__ import annotations

import csv
import io
import re
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
    """A GitHub table with the interval below each value, then the caption.

    Titles, labels and cells show literally. A caption may be Markdown, but its HTML tags show
    literally, too.
    """
    columns = [plain(column) for column in _flat_columns(table)]
    lines = [f"### {plain(table.title)}", "", f"| | {' | '.join(columns)} |"]
    lines.append(f"|:--|{(':--|' if table.words else '--:|') * len(columns)}")
    for block in table.blocks:
        if block.title:
            lines.append(f"| ***{plain(block.title)}*** |{' |' * len(columns)}")
        for row in block.rows:
            cells = " | ".join(map(_markdown, row.cells))
            lines.append(f"| {plain(row.label)} | {cells} |")
    caption = "\n".join(["", *(f"{without_tags(text)}\n" for text in table.caption)])
    facts = f"\n\n#{to_markdown(table.facts).rstrip()}\n" if table.facts else "\n"
    return "\n".join(lines) + facts + caption


def to_html(table: Table) -> str:
    """One page that needs nothing beside itself."""
    return render("table.html", title=table.title, table=table)


def plain(text: str) -> str:
    """Text in one line of GitHub's Markdown that shows as it is, also in a table."""
    return re.sub(r"([\\|<*`$&\[\]])", r"\\\1", " ".join(text.split()))


def without_tags(text: str) -> str:
    """Markdown whose tags of HTML show as text."""
    return re.sub(r"<(?=[A-Za-z/!?])", r"\<", text)


def _markdown(cell: TableCell) -> str:
    value = f"**{plain(cell.value)}**" if cell.best else plain(cell.value)
    small = "".join(f"<br><sub>{plain(t)}</sub>" for t in (cell.interval, cell.spread) if t)
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
