"""A metric along the blocks of the vision tower, beside the reference (the paper's figure 4).

The reference is a row of the ablation; its value is a dotted line in each color. Where it is the
tower's usual block without a number of its own (`layer: null`), it has no place on the axis.
"""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from prunesid.study.config.ablation import Ablation, is_number
from prunesid.study.config.arm import text
from prunesid.study.report import panels, theme
from prunesid.study.report.figures import Subject, lines, register

DOTTED = (0, (1, 1.4))


def points(subject: Subject) -> pd.DataFrame:
    """As for lines, and whether a point belongs to the reference row; x is empty off the axis."""
    data = lines.points(subject)
    own = text(subject.ablation.reference.as_dict()[_along(subject.ablation).name])
    data.insert(3, "reference", (data["x"] == own) & (data["hue"] != theme.VANILLA))
    data["x"] = data["x"].where(data["x"].map(is_number), "")
    return data


def draw(data: pd.DataFrame, subject: Subject) -> Figure:
    """The figure of `points`."""
    ablation = subject.ablation
    hue = panels.axis(ablation, ablation.figure.hue)
    shades = theme.colors(hue.values)
    dotted: dict[str, Any] = {"linewidth": 1.1, "linestyle": DOTTED}

    def draw_panel(ax: Axes, own: pd.DataFrame, scale: lines.Scale) -> None:
        lines.draw_lines(ax, own[(own["x"] != "") | (own["hue"] == theme.VANILLA)], scale, hue)
        for line in own[own["reference"]].itertuples():
            ax.axhline(line.value, color=shades[line.hue], zorder=1, **dotted)

    color = theme.MUTED if len(hue.labels) > 1 else shades[hue.values[0]]
    beside = {ablation.reference.label: Line2D([], [], color=color, **dotted)}
    return lines.draw_panels(data, subject, _along(ablation), hue, draw_panel, beside)


def _along(ablation: Ablation) -> panels.Axis:
    """The numbers along the axis; no row but the reference has none."""
    x = panels.axis(ablation, ablation.figure.x)
    numbers = {v: label for v, label in zip(x.values, x.labels, strict=True) if is_number(v)}
    return panels.Axis(x.name, tuple(numbers), tuple(numbers.values()))


register("layers", points=points, draw=draw)
