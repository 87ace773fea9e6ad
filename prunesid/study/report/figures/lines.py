"""A metric along one axis, a line per value of another: one panel per benchmark and the average.

A numeric horizontal axis gets lines, any other one points.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from math import ceil
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from numpy.typing import NDArray

from prunesid.study.report import panels, theme
from prunesid.study.report.figures import Subject, register
from prunesid.study.report.panels import Axis

PANEL_HEIGHT = 1.95
# Sizes of tick labels to try, what one letter takes of a panel's axis per point of size, and the
# least gap between two labels.
SIZES, LETTER, GAP = (7.5, 6.5), 0.0050, 0.022
# Letters in a line of a label beside a row of panels.
LABEL = 24
# How far apart points stand that share a place, as a share of the axis.
STEP = 0.022
# Words of more letters are turned.
LONG = 8


def points(subject: Subject) -> pd.DataFrame:
    """Panel, x, hue and the numbers of each point; the all-token arm has hue 'vanilla' and no x."""
    options = subject.ablation.figure
    return panels.panel_points(subject, x=options.x, hue=options.hue)


def draw(data: pd.DataFrame, subject: Subject) -> Figure:
    """The figure of `points`."""
    options = subject.ablation.figure
    x, hue = (panels.axis(subject.ablation, name) for name in (options.x, options.hue))
    return draw_panels(data, subject, x, hue, partial(draw_lines, hue=hue))


@theme.style()
def draw_panels(
    data: pd.DataFrame,
    subject: Subject,
    x: Axis,
    hue: Axis,
    draw_panel: Callable[[Axes, pd.DataFrame, Scale], None],
    reference_line: Mapping[str, Artist] | None = None,
) -> Figure:
    """A panel per benchmark along `x`, the legend of `hue`, and the small print.

    With facets, a row of panels for each of their values, which share the axes of a benchmark.

    draw_panel      draws the points of a panel, before its ticks are set
    reference_line  the line of the reference in the legend, by its label, where there is one
    """
    blocks = panels.facets_of(data, subject)
    rows = [(label, panels.panels_of(own, subject)) for label, own in blocks]
    faceted = len(rows) > 1
    shown = [(*panel, label) for label, own in rows for panel in own]
    across = len(rows[0][1]) if faceted else panels.across(len(shown))
    down = ceil(len(shown) / across)
    width = theme.TEXT * min(across / panels.ACROSS, 1)
    drawn = theme.figure(width, PANEL_HEIGHT * down + 0.6)
    shared: Any = "col" if faceted else False
    axes = list(drawn.subplots(down, across, squeeze=False, sharex=shared, sharey=shared).ravel())
    letter = LETTER * max(across / panels.ACROSS, 1)
    gray = ""
    for place, ((own, title, metric, label), ax) in enumerate(zip(shown, axes, strict=False)):
        scale = Scale(x, subject.ablation.figure.scale, letter)
        draw_panel(ax, own, scale)
        scale.apply(ax)
        if panels.draw_detectable(ax, own):
            gray = "bar"
        ax.set_title("" if faceted and place >= across else title)
        # In narrow panels one title for all stands below the middle one.
        middle = not faceted or place % across == across // 2
        ax.set_xlabel(x.title if middle and place + across >= len(shown) else "")
        side = theme.wrap(label, LABEL) if place % across == 0 else ""
        ax.set_ylabel(f"{side}\n{metric}" if side else metric)
    named = panels.named(axes[0])
    # A hue of one value tells nothing apart.
    several = len(hue.labels) > 1
    entries = {label: named[label] for label in hue.labels if several}
    entries |= {**(reference_line or {}), panels.WHOLE: named[panels.WHOLE]}
    panels.legend(drawn, axes[len(shown) :], entries, hue.title if several else "")
    dotted = (f"Dotted: the reference, {label}." for label in reference_line or ())
    panels.note(drawn, *dotted, panels.marks_note(data, subject, gray))
    return drawn


class Scale:
    """The places of the values of an axis, and the ticks there."""

    def __init__(self, shown: Axis, scale: str, letter: float = LETTER) -> None:
        """Numbers lie at their value, anything else side by side."""
        self._letter = letter
        numeric = shown.numeric
        places = [float(v) for v in shown.values] if numeric else range(len(shown.values))
        self.shown, self.log = shown, numeric and scale == "log"
        self.places: NDArray[np.float64] = np.asarray(places, np.float64)
        self._along = np.log(self.places) if self.log else self.places

    def at(self, values: pd.Series, shift: float = 0.0) -> NDArray[np.float64]:
        """Places of values, all moved by that share of the axis."""
        base = values.map(dict(zip(self.shown.values, self.places, strict=True)))
        reach = float(np.ptp(self._along)) if len(self.places) > 1 else 1.0
        at = base.to_numpy(np.float64)
        return at * np.exp(shift * reach) if self.log else at + shift * reach

    @property
    def least_gap(self) -> float:
        """The smallest distance of two values, as a share of the axis."""
        along = np.sort(self._along)
        return float(np.diff(along).min() / np.ptp(along)) if len(along) > 1 else 1.0

    def apply(self, ax: Axes) -> None:
        """Ticks at the values, labeled as far as the labels find room."""
        if self.log:
            ax.set_xscale("log")
        labels = list(self.shown.values if self.shown.numeric else self.shown.labels)
        ax.xaxis.set_minor_locator(NullLocator())
        if len(self.places) == 1:
            # A single value stands in the middle, its hues beside each other.
            (at,) = self.places
            ax.set_xlim(*((at / np.e, at * np.e) if self.log else (at - 1, at + 1)))
        style: dict[str, Any] = {}
        if self.shown.numeric:
            style["fontsize"], labels = self._thinned(labels)
        elif max(map(len, labels)) > LONG:
            style = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"}
        ax.set_xticks(self.places, labels, **style)

    def _thinned(self, labels: list[str]) -> tuple[float, list[str]]:
        """Font size and labels: smaller ones if that makes room for all, else some left out."""
        for size in SIZES:
            shown = self._fitting(labels, size)
            if "" not in shown:
                break
        return size, shown

    def _fitting(self, labels: list[str], size: float) -> list[str]:
        known = self._along
        span = max(float(np.ptp(known)), 1e-9)
        shown = [""] * len(labels)
        # The ends first: they say what the axis spans.
        order = np.argsort(known, kind="stable")
        for place in dict.fromkeys([order[0], order[-1], *order]):
            room = [
                abs(known[place] - known[other]) / span
                - self._letter * size * (len(labels[place]) + len(labels[other])) / 2
                for other in range(len(labels))
                if shown[other]
            ]
            if all(free >= GAP for free in room):
                shown[int(place)] = labels[place]
        return shown


def draw_lines(ax: Axes, own: pd.DataFrame, scale: Scale, hue: Axis) -> None:
    """A panel's points, side by side where several share a place, and the all-token line."""
    count = len(hue.values)
    step = min(STEP, scale.least_gap / (2 * max(count - 1, 1)))
    for place, series in enumerate(hue.series):
        line = own[own["hue"] == series.value]
        at = scale.at(line["x"], (place - (count - 1) / 2) * step)
        order = np.argsort(at, kind="stable")
        style = "-" if scale.shown.numeric else "none"
        panels.draw_points(ax, at[order], line.iloc[order], series, line=style)
    panels.draw_whole(ax, own)
    panels.steady_ticks(ax.yaxis)


register("lines", points=points, draw=draw)
