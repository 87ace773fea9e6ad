"""A spoke per benchmark, a line per row, a panel per column: the paper's figure 2.

Every spoke is the share of the all-token value that is left. It shows the shape of a method's
strengths and nothing of its uncertainty; `dots` shows the same numbers with their intervals.
"""

from math import ceil
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.projections.polar import PolarAxes

from prunesid.study.analysis.comparison import AVERAGE
from prunesid.study.report import panels, theme
from prunesid.study.report.figures import Subject, register

# Inches.
PANEL, LEGEND_LINE = 2.6, 0.16
# From these many spokes on, lines enclose an area.
LEAST = 3


def points(subject: Subject) -> pd.DataFrame:
    """Column, row, panel (the benchmark) and `share`, in percent of the all-token value.

    ValueError for fewer than three benchmarks, which make no radar.
    """
    if len(subject.benchmarks) < LEAST:
        raise ValueError(
            f"{subject.ablation.name}: a radar needs at least {LEAST} benchmarks, not "
            f"{len(subject.benchmarks)}; `dots` shows any number"
        )
    column = panels.column_axis(subject.ablation).name
    data = panels.panel_points(subject, row="row", column=column, hue="row")
    data = data[data["panel"] != AVERAGE]
    whole = data[data["hue"] == theme.VANILLA].set_index("panel")["value"]
    data = data[data["hue"] != theme.VANILLA].copy()
    data["share"] = 100 * data["value"] / data["panel"].map(whole)
    return data[["column", "row", "panel", "value", "share"]]


@theme.style()
def draw(data: pd.DataFrame, subject: Subject) -> Figure:
    """The figure of `points`."""
    columns = panels.column_axis(subject.ablation)
    rows = subject.ablation.rows
    angle = np.linspace(0, 2 * np.pi, len(subject.benchmarks), endpoint=False)
    shades = theme.colors([row.key for row in rows])
    wide = min(panels.ACROSS, len(columns.values))
    down = ceil(len(columns.values) / wide)
    low = float(np.floor(data["share"].min() / 5) * 5)
    width = max(theme.COLUMN, theme.TEXT * wide / panels.ACROSS)
    drawn = theme.figure(width, PANEL * down + 0.5 + LEGEND_LINE * ceil(len(rows) / 2))
    # The layout knows nothing of the names at the spokes.
    drawn.set_layout_engine("constrained", h_pad=0.12)
    axes = drawn.subplots(down, wide, squeeze=False, subplot_kw={"projection": "polar"})
    flat: list[PolarAxes] = list(axes.ravel())
    named: dict[str, Artist] = {}
    for value, label, ax in zip(columns.values, columns.labels, flat, strict=False):
        own = data[data["column"] == value].pivot(index="row", columns="panel", values="share")
        for place, row in enumerate(rows):
            if row.key not in own.index:
                continue
            share = own.loc[row.key, list(subject.titles)].to_numpy(np.float64)
            dashes = theme.DASHES[place // len(theme.PALETTE) % 4]
            style: dict[str, Any] = {"linewidth": 1.1, "linestyle": dashes, "label": row.label}
            ax.plot([*angle, angle[0]], [*share, share[0]], color=shades[row.key], **style)
        ax.set_xticks(angle, list(subject.titles.values()))
        ax.set_theta_offset(np.pi / 2)
        ax.set_theta_direction(-1)
        ax.set_ylim(low, max(100.0, float(data["share"].max())))
        ax.set_title(label, loc="center")
        ax.grid(True, color="#e6e9ed")
        ax.tick_params(axis="y", labelsize=theme.SMALL)
        named |= panels.named(ax)
    entries = {row.label: named[row.label] for row in rows}
    panels.legend(drawn, flat[len(columns.values) :], entries)
    panels.note(
        drawn,
        f"Percent of the value with all tokens, on {subject.sample}; means over seeds where chance "
        f"plays a part. The center is {low:g} %, not 0; areas say nothing. Without intervals, "
        "which stand in the table and in figures of the kind 'dots'.",
    )
    return drawn


register("radar", points=points, draw=draw)
