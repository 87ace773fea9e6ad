"""One method's change from all tokens in every stratum, with its interval.

Question families stand on the left, thirds of the images by information score on the right. A
method of several rows is shown by all of them under the first column, one of a single row under
every column.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from prunesid.study.analysis.comparison import ALL
from prunesid.study.analysis.strata import FAMILY, PHI
from prunesid.study.config.ablation import Setting
from prunesid.study.report import panels, theme
from prunesid.study.report.figures import Subject

# Inches: of a mark, of a stratum at the least, and of what is around the panels.
MARK, STRATUM, AROUND = 0.085, 0.17, 1.25
NAMES = {FAMILY: "by question family", PHI: "by information score φ"}


def points(subject: Subject, rows: Sequence[Setting]) -> pd.DataFrame:
    """Row, column, kind, benchmark, stratum and the change in points with its interval.

    Families come by their change in the first series, the largest loss first. ValueError without
    the strata.
    """
    if subject.strata is None:
        raise ValueError(f"{subject.ablation.name}: the page needs the scores by stratum")
    series = pd.DataFrame(
        {"row": row.key, "column": column.key or ALL, "place": place}
        for place, (row, column) in enumerate(series_of(subject, rows))
    )
    own = subject.strata.merge(series)
    keys = ["kind", "benchmark", "stratum"]
    first = own.loc[own["place"] == 0, [*keys, "diff"]].rename(columns={"diff": "loss"})
    own = own.merge(first, "left")
    own["loss"] = own["loss"].where(own["kind"] == FAMILY, 0.0)
    own = own.sort_values(["kind", "loss", "place"], kind="stable")
    shown = ["row", "column", "kind", "benchmark", "stratum", "questions", "images", "whole"]
    return own[[*shown, "value", "diff", "diff_low", "diff_high"]]


def series_of(subject: Subject, rows: Sequence[Setting]) -> list[tuple[Setting, Setting]]:
    """The rows under their first column, or the only row under every column that it has."""
    columns_of = subject.ablation.columns_of
    if len(rows) > 1:
        return [(row, columns_of(row)[0]) for row in rows]
    return [(rows[0], column) for column in columns_of(rows[0])]


def draw(data: pd.DataFrame, subject: Subject, rows: Sequence[Setting]) -> Figure:
    """The figure of `points`."""
    titles = {b.name: b.title for b in subject.benchmarks}
    series = series_of(subject, rows)
    kinds = [kind for kind in NAMES if (data["kind"] == kind).any()]
    strata = {kind: panels.strata(data[data["kind"] == kind]) for kind in kinds}
    most = max(map(len, strata.values()))
    height = most * max(STRATUM, MARK * (len(series) + 1)) + AROUND
    labels = [row.label if len(rows) > 1 else column.label for row, column in series]
    with theme.style():
        drawn = theme.figure(theme.TEXT, height)
        axes = drawn.subplots(1, len(kinds), squeeze=False, sharex=True)[0]
        by_column = len(rows) == 1 and len(series) > 1
        shades = theme.colors([(column if by_column else row).key for row, column in series])
        for kind, ax in zip(kinds, axes, strict=True):
            names = strata[kind]
            for place, ((row, column), color) in enumerate(
                zip(series, shades.values(), strict=True)
            ):
                mine = (data["row"] == row.key) & (data["column"] == (column.key or ALL))
                own = data[mine & (data["kind"] == kind)].set_index(["benchmark", "stratum"])
                at = panels.lines_beside(len(names), place, len(series))
                _draw_series(ax, own.loc[names], at, color, theme.marker(place), labels[place])
            ax.set_yticks(range(len(names)), [f"{titles[b]}: {stratum}" for b, stratum in names])
            panels.draw_zero(ax)
            ax.set_title(NAMES[kind])
            ax.set_xlabel("change from all tokens (points)")
            panels.lines_down(ax, most)
            panels.steady_ticks(ax.xaxis)
        if len(series) > 1:
            panels.legend(drawn, [], panels.named(axes[0]))
        panels.note(drawn, _sentences(data, subject, rows))
    return drawn


def _draw_series(
    ax: Axes, own: pd.DataFrame, at: np.ndarray, color: str, mark: str, label: str
) -> None:
    change = own["diff"].to_numpy(np.float64)
    low, high = (own[name].to_numpy(np.float64) for name in ("diff_low", "diff_high"))
    ax.errorbar(
        change, at, xerr=np.stack([change - low, high - change]), marker=mark, linestyle="none",
        color=color, elinewidth=0.8, capsize=1.6, markersize=3.6, label=label,
    )  # fmt: skip
    open_ = (low <= 0) & (high >= 0)
    panels.draw_hollow(ax, change[open_], at[open_], mark, color, markersize=3.6)


def _sentences(data: pd.DataFrame, subject: Subject, rows: Sequence[Setting]) -> list[str]:
    column = series_of(subject, rows)[0][1]
    asked = data["questions"]
    under = f" at {column.label}" if len(rows) > 1 and column.values else ""
    return [
        f"Share of right answers minus that with all tokens{under}, {asked.min():,} to "
        f"{asked.max():,} questions in a line; thirds of each benchmark's images by φ. Families "
        "from above by the loss.",
        f"Bars: {100 * subject.bootstrap.confidence:g} % intervals over images. Hollow: the "
        "interval holds 0 (not corrected for the number of lines).",
    ]
