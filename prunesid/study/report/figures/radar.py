"""A spoke per benchmark, a line per row, a panel per column: the paper's figure 2.

Every spoke is the share of the all-token value that is left. It shows the shape of a method's
strengths and nothing of its uncertainty; `dots` shows the same numbers with their intervals.
"""

from math import ceil

import numpy as np
import pandas as pd
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
    columns = panels.column_axis(subject.ablation)
    places = {"row": "row", "column": columns.name, "hue": "row"}
    data = panels.panel_points(subject.comparison, subject.benchmarks, places)
    data = data[data["panel"] != AVERAGE]
    whole = data[data["hue"] == theme.VANILLA].set_index("panel")["value"]
    data = data[data["hue"] != theme.VANILLA].copy()
    data["share"] = 100 * data["value"] / data["panel"].map(whole)
    return data[["column", "row", "panel", "value", "share"]]


def draw(data: pd.DataFrame, subject: Subject) -> Figure:
    """The figure of `points`."""
    columns = panels.column_axis(subject.ablation)
    rows = subject.ablation.rows
    titles = panels.panel_titles(subject.benchmarks)
    spokes = [b.name for b in subject.benchmarks]
    angle = np.linspace(0, 2 * np.pi, len(spokes), endpoint=False)
    shades = theme.colors([row.key for row in rows])
    wide = min(panels.ACROSS, len(columns.values))
    down = ceil(len(columns.values) / wide)
    sample = panels.sample_text(subject.comparison, subject.benchmarks)
    low = float(np.floor(data["share"].min() / 5) * 5)
    with theme.style():
        width = max(theme.COLUMN, theme.TEXT * wide / panels.ACROSS)
        drawn = theme.figure(width, PANEL * down + 0.5 + LEGEND_LINE * ceil(len(rows) / 2))
        # The layout knows nothing of the names at the spokes.
        drawn.set_layout_engine("constrained", h_pad=0.12)
        axes = drawn.subplots(down, wide, squeeze=False, subplot_kw={"projection": "polar"})
        flat: list[PolarAxes] = list(axes.ravel())
        for value, label, ax in zip(columns.values, columns.labels, flat, strict=False):
            own = data[data["column"] == value].set_index(["row", "panel"])["share"]
            for place, row in enumerate(rows):
                if row.key not in own.index.get_level_values("row"):
                    continue
                share = own[row.key].reindex(spokes).to_numpy(np.float64)
                ax.plot(
                    [*angle, angle[0]], [*share, share[0]], color=shades[row.key], label=row.label,
                    linewidth=1.1, linestyle=theme.DASHES[place // len(theme.PALETTE) % 4],
                )  # fmt: skip
            ax.set_xticks(angle, [titles[name] for name in spokes])
            ax.set_theta_offset(np.pi / 2)
            ax.set_theta_direction(-1)
            ax.set_ylim(low, max(100.0, float(data["share"].max())))
            ax.set_title(label, loc="center")
            ax.grid(True, color="#e6e9ed")
            ax.tick_params(axis="y", labelsize=theme.SMALL)
        named = {
            label: handle for ax in flat
            for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)
        }  # fmt: skip
        entries = {row.label: named[row.label] for row in rows}
        panels.legend(drawn, flat[len(columns.values) :], entries)
        panels.note(drawn, [
            f"Percent of the value with all tokens, on {sample}; means over seeds where chance "
            f"plays a part. The center is {low:g} %, not 0; areas say nothing. Without intervals, "
            "which stand in the table and in figures of the kind 'dots'.",
        ])  # fmt: skip
    return drawn


register("radar", points=points, draw=draw)
