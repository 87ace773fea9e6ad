"""A table as CSV, Markdown and one self-contained HTML page."""

from __future__ import annotations

import csv
import io
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prunesid.study.report.table import Block, Table, TableCell, TableRow

OURS = "ours"
DAGGER = "†"
DENSE = 13
# More rows than these, and the table of facts is closed at first.
OPEN_ROWS = 16
# Blocks whose first row is the model with all its tokens.
WHOLE_FIRST = ("ours", "paper")

CSS = """
:root { color-scheme: light; }
body { margin: 0; padding: 20px 24px; background: #fff; color: #1f2328;
  font: 14px/1.5 -apple-system, "Segoe UI", "Helvetica Neue", Arial, "DejaVu Sans", sans-serif; }
h1 { font-size: 19px; margin: 0 0 12px; font-weight: 650; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; white-space: nowrap;
  border-top: 2px solid #1f2328; border-bottom: 2px solid #1f2328; }
th, td { padding: 5px 9px; text-align: right; vertical-align: top; font-weight: 400; }
thead th { font-weight: 600; padding-top: 6px; }
thead tr.groups th { text-align: center; padding-bottom: 3px; }
thead tr.groups th span { display: block; border-bottom: 1px solid #8b949e; padding-bottom: 3px; }
thead tr.columns th { border-bottom: 1px solid #1f2328; }
th.row { text-align: left; position: sticky; left: 0; background: inherit; padding-right: 18px; }
thead th.row { background: #fff; }
tbody tr { background: #fff; }
td.first, thead tr.columns th.first { padding-left: 20px; }
td small { display: block; font-size: 11px; color: #636c76; line-height: 1.35; }
td b { font-weight: 700; }
tr.all td, tr.all th { border-bottom: 1px solid #d0d7de; }
tr.heading th { text-align: left; font-size: 12px; font-weight: 600; color: #424a53;
  border-top: 1px solid #1f2328; padding: 8px 9px 3px; }
tr.heading th span { position: sticky; left: 9px; }
tbody.paper tr, tbody.paper_difference tr { background: #f6f3ea; }
tbody.paper tr.all td, tbody.paper tr.all th { border-bottom-color: #ddd5bd; }
tbody.paper tr.heading th { border-top: 2px solid #1f2328; color: #6b5a1e; }
tbody.paper_difference tr.heading th { border-top-color: #b3a878; color: #6b5a1e; }
i.swatch { display: inline-block; width: 9px; height: 9px; border-radius: 2px; margin-right: 8px; }
.caption { max-width: 104ch; margin-top: 14px; font-size: 13px; color: #424a53; }
.caption p { margin: 0 0 6px; }
sup { line-height: 0; }
details { margin-top: 18px; }
summary { font-size: 14px; font-weight: 600; margin-bottom: 8px; cursor: pointer; }
table.facts { font-size: 13px; border-top-width: 1px; border-bottom-width: 1px; }
table.facts th, table.facts td { padding: 3px 9px; }
table.facts td small { display: inline; margin-left: 6px; }
table.dense { font-size: 13px; }
table.dense th, table.dense td { padding: 4px 5px; }
table.dense td.first, table.dense thead tr.columns th.first { padding-left: 16px; }
table.dense tr.heading th { padding: 7px 5px 3px; }
table.dense tr.heading th span { left: 5px; }
table.dense td small { font-size: 10px; letter-spacing: -0.01em; }
table.words th, table.words td { text-align: left; }
h2 { font-size: 16px; margin: 26px 0 8px; font-weight: 650; }
.text { max-width: 104ch; }
.text p { margin: 0 0 8px; }
pre { font: 12.5px/1.45 ui-monospace, "DejaVu Sans Mono", monospace; white-space: pre-wrap;
  max-width: 104ch; color: #424a53; }
img { max-width: 100%; }
""".strip()


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
    texts = "\n".join(f"<p>{escape(text)}</p>" for text in table.caption)
    facts = _html_facts(table.facts) if table.facts else ""
    return html_page(
        table.title, f'{html_table(table)}\n{facts}<div class="caption">\n{texts}\n</div>'
    )


def html_page(title: str, body: str) -> str:
    """A page of that title around what stands below its headline."""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>
{CSS}
</style>
</head>
<body>
<h1>{escape(title)}</h1>
{body}
</body>
</html>
"""


def _html_facts(table: Table) -> str:
    shown = " open" if sum(len(block.rows) for block in table.blocks) <= OPEN_ROWS else ""
    return f"""<details{shown}><summary>{escape(table.title)}</summary>
{html_table(table, "facts")}
</details>
"""


def html_table(table: Table, kind: str = "") -> str:
    """The table alone; `kind` 'facts' makes it small."""
    starts = _starts(table)
    groups = "".join(
        f'<th colspan="{span}">{f"<span>{escape(label)}</span>" if label else ""}</th>'
        for label, span in table.groups
    )
    named = any(label for label, _ in table.groups)
    upper = f'<tr class="groups"><th class="row"></th>{groups}</tr>\n' if named else ""
    classes = " ".join(
        part
        for part in (
            kind,
            "words" if table.words else "",
            "dense" if len(table.columns) > DENSE else "",
        )
        if part
    )
    columns = "".join(
        f'<th class="first">{escape(c)}</th>' if place in starts else f"<th>{escape(c)}</th>"
        for place, c in enumerate(table.columns)
    )
    bodies = "\n".join(_html_block(block, len(table.columns), starts) for block in table.blocks)
    return f"""<div class="scroll">
<table{f' class="{classes}"' if classes else ""}>
<thead>
{upper}<tr class="columns"><th class="row"></th>{columns}</tr>
</thead>
{bodies}
</table>
</div>"""


def _starts(table: Table) -> set[int]:
    """The columns that open a group."""
    places, start = set(), 0
    for _, span in table.groups:
        places.add(start)
        start += span
    return places


def _html_block(block: Block, columns: int, starts: set[int]) -> str:
    lines = [f'<tbody class="{block.kind}">']
    if block.title:
        heading = f'<th colspan="{columns + 1}"><span>{escape(block.title)}</span></th>'
        lines.append(f'<tr class="heading">{heading}</tr>')
    for place, row in enumerate(block.rows):
        top = ' class="all"' if place == 0 and block.kind in WHOLE_FIRST else ""
        lines.append(f"<tr{top}>{_html_label(row)}{_html_cells(row, starts)}</tr>")
    return "\n".join([*lines, "</tbody>"])


def _html_label(row: TableRow) -> str:
    swatch = f'<i class="swatch" style="background:{row.color}"></i>' if row.color else ""
    return f'<th class="row" scope="row">{swatch}{escape(row.label)}</th>'


def _html_cells(row: TableRow, starts: set[int]) -> str:
    return "".join(
        f'<td class="first">{_html(cell)}</td>' if place in starts else f"<td>{_html(cell)}</td>"
        for place, cell in enumerate(row.cells)
    )


def _html(cell: TableCell) -> str:
    value = f"<b>{escape(cell.value)}</b>" if cell.best else escape(cell.value)
    mark = f"<sup>{DAGGER}</sup>" if cell.mark else ""
    small = "".join(f"<small>{escape(t)}</small>" for t in (cell.interval, cell.spread) if t)
    return value + mark + small


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
