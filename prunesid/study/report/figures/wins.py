"""Every row against every other, on average over the benchmarks: a panel per column.

A cell is the row's average minus the other's, in percentage points of the all-token value; a mark
says that the difference survives Holm's correction over all pairs of the panel.
"""

import pandas as pd
from matplotlib.figure import Figure

from prunesid.study.analysis.comparison import ALL, AVERAGE
from prunesid.study.report import panels, theme
from prunesid.study.report.figures import Subject, dots, register
from prunesid.study.report.table import LEVEL

# Inches: of a cell, of a letter of the labels, of the color bar, above each panel, and of the note.
CELL, LETTER, BAR, HEAD, FOOT = 0.25, 0.08, 0.9, 0.3, 0.5


def points(subject: Subject) -> pd.DataFrame:
    """Column, row, other and their difference on average, with its test.

    Rows are sorted by their average, the highest first. ValueError without the pairs.
    """
    pairs = subject.needed("pairs")
    pairs = pairs[pairs["benchmark"] == AVERAGE]
    place = {row.key: number for number, row in enumerate(dots.ranked(subject))}
    columns = {column.key or ALL: number for number, column in enumerate(subject.ablation.columns)}
    places = {"column": columns, "row": place, "other": place}
    pairs = pairs.sort_values(list(places), key=lambda own: own.map(places[str(own.name)]))
    return pairs[[*places, "diff", "diff_low", "diff_high", "p_holm"]]


@theme.style()
def draw(data: pd.DataFrame, subject: Subject) -> Figure:
    """The figure of `points`."""
    ablation = subject.ablation
    ranked = dots.ranked(subject)
    rows, names = [row.key for row in ranked], [row.label for row in ranked]
    down = len(ablation.columns)
    reach = max(float(data["diff"].abs().max()), 1e-9)
    side, margin = CELL * len(rows), LETTER * max(map(len, names))
    drawn = theme.figure(side + margin + BAR, (side + HEAD) * down + margin + FOOT)
    # Square cells; the plain layout would not know of the room that they leave.
    drawn.set_layout_engine("compressed")
    axes = list(drawn.subplots(down, 1, squeeze=False, sharex=True).ravel())
    for column, ax in zip(ablation.columns, axes, strict=True):
        own = data[data["column"] == (column.key or ALL)]
        table, p = (
            own.pivot(index="row", columns="other", values=name).reindex(index=rows, columns=rows)
            for name in ("diff", "p_holm")
        )
        image = panels.draw_heat(ax, table, p < LEVEL, reach)
        ax.set_yticks(range(len(rows)), names)
        ax.set_title(column.label if down > 1 or column.values else "")
    axes[-1].set_xticks(range(len(rows)), names, rotation=60, ha="right", rotation_mode="anchor")
    drawn.colorbar(image, ax=axes[0], shrink=0.8, label="row minus column (points)")
    for ax in axes[1:]:  # as wide as the first, which gave up room for its bar
        drawn.colorbar(image, ax=ax, shrink=0.8).ax.set_visible(False)
    panels.note(
        drawn,
        f"Row minus column on average over {subject.sample}, in percentage points of the value "
        "with all tokens; from above by that average over all columns. "
        f"{dots.order_note(ablation)} *: the difference survives Holm's correction over the "
        f"panel's pairs (p < {LEVEL:g}, sign-flip test over images). The "
        f"{subject.confidence} intervals are in the CSV beside it.",
    )
    return drawn


register("wins", points=points, draw=draw)
