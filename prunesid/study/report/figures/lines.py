"""A metric along one axis, a line per value of another: one panel per benchmark and the average.

A numeric horizontal axis gets lines, any other one points.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator
from numpy.typing import NDArray

from prunesid.study.report import panels, theme
from prunesid.study.report.figures import Subject, register
from prunesid.study.report.panels import Axis

PANEL_HEIGHT = 1.95
# Sizes of tick labels to try, what one letter takes of a panel's axis per point of size, and the
# least gap between two labels.
SIZES, LETTER, GAP = (7.5, 6.5), 0.0050, 0.022
# How far apart points stand that share a place, as a share of the axis.
STEP = 0.022
# Words of more letters are turned.
LONG = 8


def points(subject: Subject) -> pd.DataFrame:
    """Panel, x, hue and the numbers of each point; the all-token arm has hue 'vanilla' and no x."""
    options = subject.ablation.figure
    return panels.panel_points(
        subject.comparison, subject.benchmarks, {"x": options.x, "hue": options.hue}
    )


def draw(data: pd.DataFrame, subject: Subject) -> Figure:
    """The figure of `points`."""
    options = subject.ablation.figure
    x, hue = (panels.axis(subject.ablation, name) for name in (options.x, options.hue))

    def draw_panel(ax: Axes, own: pd.DataFrame, scale: Scale) -> None:
        draw_lines(ax, own, scale, hue)

    return draw_panels(data, subject, x, hue, draw_panel)


def draw_panels(
    data: pd.DataFrame,
    subject: Subject,
    x: Axis,
    hue: Axis,
    draw_panel: Callable[[Axes, pd.DataFrame, Scale], None],
    reference_line: Mapping[str, Artist] | None = None,
) -> Figure:
    """A panel per benchmark along `x`, the legend of `hue`, and the small print.

    draw_panel      draws the points of a panel, before its ticks are set
    reference_line  the line of the reference in the legend, by its label, where there is one
    """
    titles = panels.panel_titles(subject.benchmarks)
    shown = [name for name in titles if name in set(data["panel"])]
    reference = subject.ablation.reference.label
    with theme.style():
        drawn, axes = panels.subplots(len(shown), PANEL_HEIGHT, 0.6)
        detectable = False
        for place, (panel, ax) in enumerate(zip(shown, axes, strict=False)):
            own = data[data["panel"] == panel]
            scale = Scale.of(x, subject.ablation.figure.scale)
            draw_panel(ax, own, scale)
            scale.apply(ax)
            detectable |= panels.draw_detectable(ax, own)
            ax.set_title(titles[panel])
            ax.set_xlabel(x.title if place + panels.across(len(shown)) >= len(shown) else "")
            ax.set_ylabel(panels.metric(panel, subject.benchmarks))
        named = panels.named(axes[0])
        # A hue of one value tells nothing apart.
        several = len(hue.labels) > 1
        entries = {label: named[label] for label in hue.labels if several}
        entries |= {**(reference_line or {}), panels.WHOLE: named[panels.WHOLE]}
        panels.legend(drawn, axes[len(shown) :], entries, hue.title if several else "")
        panels.note(drawn, [
            *(f"Dotted: the reference, {label}." for label in reference_line or ()),
            panels.bars_note(data, subject.bootstrap.confidence),
            panels.tests_note(data, reference),
            panels.detectable_note(reference) if detectable else "",
        ])  # fmt: skip
    return drawn


class Scale:
    """The places of the values of an axis, and the ticks there."""

    def __init__(self, shown: Axis, places: NDArray[np.float64], log: bool) -> None:
        self.shown, self.places, self.log = shown, places, log

    @classmethod
    def of(cls, shown: Axis, scale: str) -> Scale:
        """Numbers lie at their value, anything else side by side."""
        numeric = shown.numeric
        places = [float(v) for v in shown.values] if numeric else range(len(shown.values))
        return cls(shown, np.asarray(places, np.float64), numeric and scale == "log")

    def at(self, values: pd.Series, shift: float = 0.0) -> NDArray[np.float64]:
        """Places of values, all moved by that share of the axis."""
        base = values.map(dict(zip(self.shown.values, self.places, strict=True)))
        known = np.log(self.places) if self.log else self.places
        reach = float(np.ptp(known)) if len(known) > 1 else 1.0
        at = base.to_numpy(np.float64)
        return at * np.exp(shift * reach) if self.log else at + shift * reach

    @property
    def least_gap(self) -> float:
        """The smallest distance of two values, as a share of the axis."""
        known = np.sort(np.log(self.places) if self.log else self.places)
        return float(np.diff(known).min() / np.ptp(known)) if len(known) > 1 else 1.0

    def apply(self, ax: Axes) -> None:
        """Ticks at the values, labeled as far as the labels find room."""
        if self.log:
            ax.set_xscale("log")
        labels = list(self.shown.values if self.shown.numeric else self.shown.labels)
        ax.xaxis.set_major_locator(FixedLocator(list(self.places)))
        ax.xaxis.set_minor_locator(NullLocator())
        if len(self.places) == 1:
            # A single value stands in the middle, its hues beside each other.
            (at,) = self.places
            ax.set_xlim(*((at / np.e, at * np.e) if self.log else (at - 1, at + 1)))
        if self.shown.numeric:
            size, shown = self._thinned(labels)
            ax.set_xticks(self.places, shown, fontsize=size)
        else:
            long = max(map(len, labels)) > LONG
            ax.set_xticks(self.places, labels)
            if long:
                for label in ax.get_xticklabels():
                    label.set(rotation=30, ha="right", rotation_mode="anchor")

    def _thinned(self, labels: list[str]) -> tuple[float, list[str]]:
        """Font size and labels: smaller ones if that makes room for all, else some left out."""
        for size in SIZES:
            shown = self._fitting(labels, size)
            if "" not in shown:
                break
        return size, shown

    def _fitting(self, labels: list[str], size: float) -> list[str]:
        known = np.log(self.places) if self.log else self.places
        span = max(float(np.ptp(known)), 1e-9)
        shown = [""] * len(labels)
        # The ends first: they say what the axis spans.
        order = np.argsort(known, kind="stable")
        for place in dict.fromkeys([order[0], order[-1], *order]):
            room = [
                abs(known[place] - known[other]) / span
                - LETTER * size * (len(labels[place]) + len(labels[other])) / 2
                for other in range(len(labels))
                if shown[other]
            ]
            if all(free >= GAP for free in room):
                shown[int(place)] = labels[place]
        return shown


def draw_lines(ax: Axes, own: pd.DataFrame, scale: Scale, hue: Axis) -> None:
    """A panel's points, side by side where several share a place, and the all-token line."""
    shades = theme.colors(hue.values)
    count = len(hue.values)
    step = min(STEP, scale.least_gap / (2 * max(count - 1, 1)))
    shifts = (np.arange(count) - (count - 1) / 2) * step
    for place, (value, label) in enumerate(zip(hue.values, hue.labels, strict=True)):
        line = own[own["hue"] == value]
        at = scale.at(line["x"], float(shifts[place]))
        order = np.argsort(at, kind="stable")
        panels.draw_points(
            ax, at[order], line.iloc[order], shades[value], theme.marker(place), label,
            "-" if scale.shown.numeric else "none",
        )  # fmt: skip
    panels.draw_whole(ax, own)
    panels.steady_ticks(ax.yaxis)


register("lines", points=points, draw=draw)
