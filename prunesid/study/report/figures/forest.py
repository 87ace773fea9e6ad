"""Differences from the reference, a line per row: which of many changes matters?

One panel per benchmark and one for the average, color for the columns of the ablation. It reads
where a figure of values would show a heap of overlapping points.
"""

from collections.abc import Sequence
from math import ceil

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from prunesid.study.config.ablation import Setting
from prunesid.study.report import panels, theme
from prunesid.study.report.figures import Subject, register

# Inches: of a mark, a line of a label, a panel; and letters of a line.
LINE_HEIGHT, LABEL_HEIGHT, PANEL_HEIGHT, LETTERS = 0.115, 0.14, 1.5, 26
# Panels taller than this stand side by side, so many at the most: two rows of them would not fit
# a page.
TALL, BESIDE = 4.0, 6


def points(subject: Subject) -> pd.DataFrame:
    """Panel, row, column and the numbers of each difference from the reference."""
    column = panels.column_axis(subject.ablation).name
    data = panels.panel_points(subject, row="row", column=column)
    # The all-token arm has no column; a row without values of its own is called '', too.
    return data[(data["column"] != "") & (data["row"] != subject.ablation.reference.key)]


def draw(data: pd.DataFrame, subject: Subject) -> Figure:
    """The figure of `points`."""
    reference = subject.ablation.reference
    rows = [row for row in subject.ablation.rows if row != reference]
    sentence = f"Differences from {reference.label} under the same column, on {subject.sample}."
    return draw_rows(data, subject, rows, "diff", sentence)


@theme.style()
def draw_rows(
    data: pd.DataFrame, subject: Subject, rows: Sequence[Setting], of: str, sentence: str
) -> Figure:
    """One panel per benchmark, a line per row, from above: its differences or its values.

    of        'diff' (the panels have a line at 0 and a band of what is not detectable) or 'value'
              (a dashed line at the value of all tokens)
    sentence  what the small print begins with
    """
    columns = panels.column_axis(subject.ablation)
    shown = panels.panels_of(data, subject)
    names = [theme.wrap(row.label, LETTERS) for row in rows]
    marks = LINE_HEIGHT * (len(columns.values) + 1)
    text = LABEL_HEIGHT * max(name.count("\n") + 1 for name in names)
    height = max(PANEL_HEIGHT, 0.45 + max(marks, text) * len(rows))
    beside = height > TALL and len(shown) <= BESIDE
    across = len(shown) if beside else panels.across(len(shown))
    down = ceil(len(shown) / across)
    width = theme.TEXT * min(max(across, 2) / panels.ACROSS, 1)
    drawn = theme.figure(width, height * down + 0.6)
    axes = list(drawn.subplots(down, across, squeeze=False, sharey=True).ravel())
    for place, ((own, title, metric), ax) in enumerate(zip(shown, axes, strict=False)):
        _draw_panel(ax, own, [row.key for row in rows], columns, of)
        panels.steady_ticks(ax.xaxis, 3 if beside else 5)
        ax.set_title(title)
        ax.set_xlabel(f"Δ {metric}" if of == "diff" else metric)
        if place % across == 0:
            ax.set_yticks(range(len(rows)), names)
    entries = panels.named(axes[0])
    if len(columns.values) == 1:
        entries = {label: entries[label] for label in entries if label == panels.WHOLE}
    band = of == "diff" and data["detectable"].max() > 0
    if band:
        entries["not detectable"] = Patch(color=theme.BAND, alpha=0.35, linewidth=0)
    panels.legend(drawn, axes[len(shown) :], entries)
    panels.note(drawn, sentence, panels.marks_note(data, subject, "band" if band else ""))
    return drawn


def _draw_panel(
    ax: Axes, own: pd.DataFrame, rows: list[str], columns: panels.Axis, of: str
) -> None:
    size = own["detectable"].max()
    if of == "value":
        panels.draw_whole(ax, own, upright=True)
    elif size > 0:
        ax.axvspan(-size, size, color=theme.BAND, alpha=0.35, linewidth=0, zorder=0)
    if of == "diff":
        panels.draw_zero(ax)
    for place, series in enumerate(columns.series):
        line = own[own["column"] == series.value].set_index("row").reindex(rows)
        at = panels.lines_beside(len(rows), place, len(columns.values))
        panels.draw_points(ax, at, line, series, of=of, sideways=True)
    panels.lines_down(ax, len(rows))


register("forest", points=points, draw=draw)
