"""Who wins at the smallest budget, by how much, and is it sure: one panel for the average.

A line per row that is run under the ablation's first column, the highest first, with its value, its
difference from the first one and whether that survives the correction over all pairs.
"""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from prunesid.study.analysis.comparison import ALL, AVERAGE
from prunesid.study.config.ablation import Setting
from prunesid.study.report import panels, theme
from prunesid.study.report.figures import Subject, register
from prunesid.study.report.table import LEVEL, signed

# Inches: of a line, and what is above and below the lines.
LINE, AROUND = 0.165, 1.25
# As wide as a digit.
FIGURE_SPACE = "\u2007"


def points(subject: Subject) -> pd.DataFrame:
    """Row, its average with the interval, and the difference from the first row with its test.

    The highest average comes first; `sure` says that the difference is not 0 after Holm's
    correction over all pairs of the column, which covers that the first row was chosen by looking.
    ValueError without the pairs.
    """
    column = _column(subject).key or ALL
    lines = subject.comparison
    own = lines[(lines["column"] == column) & (lines["benchmark"] == AVERAGE)]
    own = own[own["row"].isin([row.key for row in subject.ablation.rows])]
    own = own.sort_values("value", ascending=False, kind="stable").set_index("row")
    pairs = subject.needed("pairs")
    pairs = pairs[(pairs["column"] == column) & (pairs["benchmark"] == AVERAGE)]
    against = pairs[pairs["other"] == own.index[0]].set_index("row")
    lead = against.reindex(own.index)[["diff", "diff_low", "diff_high", "p_holm"]]
    data = pd.concat([own[["value", "ci_low", "ci_high"]], lead], axis=1)
    return data.assign(sure=data["p_holm"] < LEVEL).reset_index()


@theme.style()
def draw(data: pd.DataFrame, subject: Subject) -> Figure:
    """The figure of `points`."""
    ablation, column = subject.ablation, _column(subject)
    labels = {row.key: row.label for row in ablation.rows}
    names = [labels[key] for key in data["row"]]
    drawn = theme.figure(theme.TEXT, LINE * len(data) + AROUND)
    ax = drawn.subplots()
    # The layout counts the numbers beside the panel among its labels.
    _draw_lines(ax, data)
    ax.set_yticks(range(len(names)), names)
    for place, key in enumerate(data["row"]):
        if key == ablation.reference.key:
            ax.get_yticklabels()[place].set_fontweight("bold")
    _write_numbers(ax, data, names[0])
    ax.set_xlabel(f"average ({panels.AVERAGE_METRIC})")
    if column.values:
        ax.set_title(column.label)
    tied = int((~data["sure"]).sum()) - 1
    others = [labels[row.key] for row in ablation.rows if row.key not in set(data["row"])]
    panels.note(
        drawn,
        f"Average over {subject.sample}, with {subject.confidence} intervals over images.",
        f"Filled: {names[0]}, the highest, and what is surely below it (p < {LEVEL:g}, sign-flip "
        "test over images, Holm's correction over all pairs). Hollow: not told apart from it "
        f"({tied} of {len(names) - 1}).",
        f"Bold: {ablation.reference.label}, with which the tables compare.",
        f"Not run here: {'; '.join(others)}." if others else "",
    )
    return drawn


def _column(subject: Subject) -> Setting:
    return subject.ablation.columns[0]


def _draw_lines(ax: Axes, data: pd.DataFrame) -> None:
    shades = theme.colors(list(data["row"]))
    for place, line in enumerate(data.itertuples()):
        open_ = place > 0 and not line.sure
        color = shades[line.row] if place == 0 or open_ else theme.MUTED
        ax.hlines(place, line.ci_low, line.ci_high, color=color, linewidth=1.2)
        ax.plot(
            line.value, place, marker="o", color=color, markersize=5, zorder=3,
            markerfacecolor="white" if open_ else color,
        )  # fmt: skip
    ax.axvline(100, color=theme.INK, linewidth=0.9, linestyle=(0, (4, 2)))
    panels.lines_down(ax, len(data))


def _write_numbers(ax: Axes, data: pd.DataFrame, first: str) -> None:
    """Value and difference from the first row, to the right of the panel."""
    values = [f"{value:.1f}" for value in data["value"]]
    steps = [
        f"{signed(line.diff, 1)} ({signed(line.diff_low, 1)} to {signed(line.diff_high, 1)})"
        for line in data.iloc[1:].itertuples()
    ]
    shown = zip(_padded(values), ["", *_padded(steps)], strict=True)
    beside = ax.secondary_yaxis("right")
    beside.set_yticks(range(len(data)), ["    ".join(pair).rstrip() for pair in shown])
    beside.tick_params(length=0)
    beside.spines["right"].set_visible(False)
    points: Any = {"xycoords": "axes fraction", "textcoords": "offset points"}
    style: Any = {"fontsize": 7, "color": theme.MUTED}
    ax.annotate(f"average, minus {first}", (1, 1), xytext=(4, 6), **points, **style)


def _padded(texts: list[str]) -> list[str]:
    """The texts with their first points below one another."""
    widest = max((text.find(".") for text in texts), default=0)
    return [FIGURE_SPACE * (widest - text.find(".")) + text for text in texts]


register("ranking", points=points, draw=draw)
