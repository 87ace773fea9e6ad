"""The figure of an ablation: a metric along one axis, a line per value of another, intervals.

One panel per benchmark and one for the average relative to all tokens. A numeric horizontal axis
gets lines, any other one points.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from prunesid.files import atomic
from prunesid.render import theme
from prunesid.study.ablation import RESERVED_AXES, Ablation, Setting
from prunesid.study.arm import ALL_TOKENS, text
from prunesid.study.comparison import ALL, AVERAGE, OVERALL
from prunesid.study.config import Benchmark

NAMES = {"budget": "visual tokens kept", "num_groups": "groups K", "layer": "ViT block"}
WHOLE = "all tokens"
POINTS = ["panel", "x", "hue", "value", "ci_low", "ci_high", "spread", "seeds", "unit"]


@dataclass(frozen=True)
class Axis:
    """The values that an axis takes, in order, with what is shown for each."""

    name: str
    values: tuple[str, ...]
    labels: tuple[str, ...]

    @property
    def numeric(self) -> bool:
        return all(value.replace(".", "", 1).isdigit() for value in self.values)


def figure_data(
    comparison: pd.DataFrame, ablation: Ablation, benchmarks: Sequence[Benchmark]
) -> pd.DataFrame:
    """The points behind the figure: panel, x, hue, value, interval, spread and number of seeds.

    `comparison` as `comparison.compare` gives it. The all-token arm has the hue 'vanilla' and no x.
    """
    kept = comparison[comparison["column"] != OVERALL].copy()
    vanilla = (kept["row"] == ALL_TOKENS) & (kept["column"] == ALL)
    kept["panel"] = kept["benchmark"]
    kept["x"] = kept[ablation.figure.x].where(~vanilla, "")
    kept["hue"] = kept[ablation.figure.hue].where(~vanilla, ALL_TOKENS)
    order = {name: place for place, name in enumerate([*(b.name for b in benchmarks), AVERAGE])}
    kept = kept[kept["panel"].isin(order)]
    return kept.sort_values("panel", key=lambda names: names.map(order), kind="stable")[POINTS]


def draw(data: pd.DataFrame, ablation: Ablation, benchmarks: Sequence[Benchmark]) -> Figure:
    """The figure of `figure_data`'s points."""
    x, hue = axis(ablation, ablation.figure.x), axis(ablation, ablation.figure.hue)
    shades = theme.colors(hue.values)
    titles = {b.name: b.title for b in benchmarks} | {AVERAGE: "Average"}
    panels = [name for name in titles if name in set(data["panel"])]
    across = min(3, len(panels))
    down = ceil(len(panels) / across)
    with theme.style():
        drawn = theme.figure(theme.TEXT * across / 3, 1.95 * down + 0.35)
        axes = list(drawn.subplots(down, across, squeeze=False).ravel())
        for place, (panel, ax) in enumerate(zip(panels, axes, strict=False)):
            points = data[data["panel"] == panel]
            _draw_panel(ax, points, ablation.figure.scale, x, hue, shades)
            ax.set_title(titles[panel])
            below = place + across >= len(panels)
            ax.set_xlabel(_title(x) if below else "")
            ax.set_ylabel(_metric(panel, points, benchmarks))
        _draw_legend(drawn, axes[0], axes[len(panels) :], hue)
    return drawn


def write_figure(
    comparison: pd.DataFrame,
    ablation: Ablation,
    benchmarks: Sequence[Benchmark],
    paths: Sequence[Path],
) -> None:
    """Write the figure to every path by its suffix: .pdf, .svg, .png, and .csv for its points."""
    data = figure_data(comparison, ablation, benchmarks)
    drawn = draw(data, ablation, benchmarks)
    for path in paths:
        if path.suffix == ".csv":
            with atomic(path) as part:
                data.to_csv(part, index=False, float_format="%.6g", lineterminator="\n")
        else:
            theme.save(drawn, path)


def axis(ablation: Ablation, name: str) -> Axis:
    """The axis of that name: 'row', 'column', or one that rows or columns have."""
    whole = {"row": ablation.rows, "column": ablation.columns}
    if name in whole:
        settings = whole[name]
        return Axis(name, tuple(s.key or ALL for s in settings), tuple(s.label for s in settings))
    settings = (*ablation.rows, *ablation.columns)
    values = dict.fromkeys(text(s.as_dict()[name]) for s in settings if name in s.as_dict())
    return Axis(name, tuple(values), tuple(_label(settings, name, value) for value in values))


def _label(settings: Sequence[Setting], name: str, value: str) -> str:
    """A value's label where some setting consists of it alone, else the value."""
    alone = (s.label for s in settings if s.key == f"{name}={value}")
    return next(alone, value)


def _title(shown: Axis) -> str:
    if shown.name in RESERVED_AXES:
        return ""
    return NAMES.get(shown.name, shown.name.replace("_", " "))


def _draw_legend(drawn: Figure, first: Axes, empty: Sequence[Axes], hue: Axis) -> None:
    """The legend, in the place of a missing panel if there is one, else below all."""
    handles, labels = first.get_legend_handles_labels()
    named = dict(zip(labels, handles, strict=True))
    # A hue of one value tells nothing apart; only the all-token line needs a name then.
    shown = [*(hue.labels if len(hue.labels) > 1 else ()), WHOLE]
    entries = [named[label] for label in shown]
    for ax in empty:
        ax.set_axis_off()
    if empty:
        empty[-1].legend(entries, shown, loc="center", title=_title(hue) or None, alignment="left")
    else:
        drawn.legend(entries, shown, loc="outside lower center", ncols=min(len(shown), 4))


def _metric(panel: str, points: pd.DataFrame, benchmarks: Sequence[Benchmark]) -> str:
    if panel == AVERAGE:
        return "% of all tokens"
    metrics = {"mean": "accuracy (%)", "f1": "F1 (%)", "mme": "score (points)"}
    return next(metrics[b.statistic] for b in benchmarks if b.name == panel)


def _draw_panel(
    ax: Axes, points: pd.DataFrame, scale: str, x: Axis, hue: Axis, shades: dict[str, str]
) -> None:
    places = [float(v) for v in x.values] if x.numeric else list(map(float, range(len(x.values))))
    place_of = dict(zip(x.values, places, strict=True))
    log = x.numeric and scale == "log"
    reach = np.ptp(np.log(places) if log else places) if len(places) > 1 else 1.0
    shifts = (np.arange(len(hue.values)) - (len(hue.values) - 1) / 2) * 0.022 * reach
    for place, (value, label) in enumerate(zip(hue.values, hue.labels, strict=True)):
        own = points[points["hue"] == value]
        base = own["x"].map(place_of).to_numpy(np.float64)
        order = np.argsort(base)
        own, base = own.iloc[order], base[order]
        at = base * np.exp(shifts[place]) if log else base + shifts[place]
        height = own["value"].to_numpy()
        color, marker = shades[value], theme.MARKERS[place % len(theme.MARKERS)]
        errors = np.stack([height - own["ci_low"], own["ci_high"] - height])
        ax.errorbar(
            at, height, yerr=errors, marker=marker, linestyle="-" if x.numeric else "none",
            color=color, elinewidth=1.0, capsize=1.8, markeredgecolor="white", markeredgewidth=0.5,
            label=label,
        )  # fmt: skip
    vanilla = points.loc[points["hue"] == ALL_TOKENS, "value"]
    whole = float(vanilla.iloc[0]) if len(vanilla) else 100.0
    ax.axhline(
        whole, color=theme.COLORS[ALL_TOKENS], linewidth=0.9, linestyle=(0, (4, 2)), label=WHOLE
    )
    if log:
        ax.set_xscale("log")
    ax.xaxis.set_major_locator(FixedLocator(places))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xticks(places, x.values if x.numeric else x.labels)
    if not x.numeric and max(map(len, x.labels)) > 8:
        ax.set_xticks(places, x.labels, rotation=30, ha="right", rotation_mode="anchor")
