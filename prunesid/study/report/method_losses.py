"""One method's change from all tokens in every stratum, with its interval.

Question families stand on the left, thirds of the images by information score on the right. A
method of several rows is shown by all of them under the first column, one of a single row under
every column.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from prunesid.study.analysis.comparison import ALL
from prunesid.study.analysis.strata import FAMILY
from prunesid.study.config.ablation import Setting
from prunesid.study.report import panels, theme
from prunesid.study.report.figures import Subject

# Inches: of a mark, of a stratum at the least, and of what is around the panels.
MARK, STRATUM, AROUND = 0.085, 0.17, 1.25


def points(subject: Subject, rows: Sequence[Setting]) -> pd.DataFrame:
    """Row, column, kind, benchmark, stratum and the change in points with its interval.

    Families are sorted by their change in the first series, the largest loss first. ValueError
    without the strata.
    """
    series = pd.DataFrame(
        {"row": row.key, "column": column.key or ALL, "place": place}
        for place, (row, column) in enumerate(series_of(subject, rows))
    )
    own = subject.needed("strata").merge(series)
    keys = ["kind", "benchmark", "stratum"]
    first = own.loc[own["place"] == 0, [*keys, "diff"]].rename(columns={"diff": "loss"})
    own = own.merge(first, "left")
    own["loss"] = own["loss"].where(own["kind"] == FAMILY, 0.0)
    own = own.sort_values(["kind", "loss", "place"], kind="stable")
    shown = ["row", "column", *keys, "questions", "images", "whole", "value", "diff"]
    return own[[*shown, "diff_low", "diff_high"]]


def series_of(subject: Subject, rows: Sequence[Setting]) -> list[tuple[Setting, Setting]]:
    """The rows under their first column, or the only row under every column that it has."""
    columns_of = subject.ablation.columns_of
    if len(rows) > 1:
        return [(row, columns_of(row)[0]) for row in rows]
    return [(rows[0], column) for column in columns_of(rows[0])]


@theme.style()
def draw(data: pd.DataFrame, subject: Subject, rows: Sequence[Setting]) -> Figure:
    """The figure of `points`."""
    pairs = series_of(subject, rows)
    shown = [(row if len(rows) > 1 or len(pairs) == 1 else column).key for row, column in pairs]
    labels = [row.label if len(rows) > 1 else column.label for row, column in pairs]
    series = panels.Axis("row", tuple(shown), tuple(labels)).series
    kinds = [kind for kind in panels.STRATA if kind in set(data["kind"])]
    strata = {kind: panels.strata(data[data["kind"] == kind]) for kind in kinds}
    most = max(map(len, strata.values()))
    height = most * max(STRATUM, MARK * (len(series) + 1)) + AROUND
    drawn = theme.figure(theme.TEXT, height)
    axes = drawn.subplots(1, len(strata), squeeze=False, sharex=True)[0]
    for (kind, names), ax in zip(strata.items(), axes, strict=True):
        keys = ["row", "column", "benchmark", "stratum"]
        lines = data[data["kind"] == kind].set_index(keys).sort_index()
        for place, ((row, column), one) in enumerate(zip(pairs, series, strict=True)):
            own = lines.loc[row.key, column.key or ALL].loc[names]
            _draw_series(ax, own, panels.lines_beside(len(names), place, len(series)), one)
        titles = [f"{subject.titles[benchmark]}: {stratum}" for benchmark, stratum in names]
        ax.set_yticks(range(len(names)), titles)
        panels.draw_zero(ax)
        ax.set_title(panels.STRATA[kind].partition(":")[0])
        ax.set_xlabel("change from all tokens (points)")
        panels.lines_down(ax, most)
        panels.steady_ticks(ax.xaxis)
    if len(series) > 1:
        panels.legend(drawn, [], panels.named(axes[0]))
    asked, column = data["questions"], pairs[0][1]
    under = f" at {column.label}" if len(rows) > 1 and column.values else ""
    panels.note(
        drawn,
        f"Share of right answers minus that with all tokens{under}, {asked.min():,} to "
        f"{asked.max():,} questions in a line; thirds of each benchmark's images by φ. Families "
        "from above by the loss.",
        f"Bars: {subject.confidence} intervals over images. Hollow: the interval holds 0 (not "
        "corrected for the number of lines).",
    )
    return drawn


def _draw_series(ax: Axes, own: pd.DataFrame, at: np.ndarray, series: panels.Series) -> None:
    change, low, high = own[["diff", "diff_low", "diff_high"]].to_numpy(np.float64).T
    look: dict[str, Any] = {"color": series.color, "marker": series.marker, "linestyle": "none"}
    bars: dict[str, Any] = {"elinewidth": 0.8, "capsize": 1.6, "markersize": 3.6}
    reach = np.stack([change - low, high - change])
    ax.errorbar(change, at, xerr=reach, label=series.label, **look, **bars)
    open_ = (low <= 0) & (high >= 0)
    panels.draw_hollow(ax, change[open_], at[open_], series, markersize=3.6)
