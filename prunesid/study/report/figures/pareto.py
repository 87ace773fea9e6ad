"""Accuracy against multiply-adds: what each row gets for its cost, and who is on the front.

A point per row and column: the average over benchmarks against vision tower, choice of tokens and
language model together. A point is on the front where no other is at least as accurate for less.
"""

from collections.abc import Mapping
from math import ceil
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from prunesid.study.analysis.comparison import ALL, AVERAGE
from prunesid.study.config.arm import ALL_TOKENS
from prunesid.study.report import panels, theme
from prunesid.study.report.arm_facts import count_text
from prunesid.study.report.figures import Subject, register

# Inches: of a label, the panel, what is around it, and a panel of one row with its title.
LABEL, PANEL, AROUND, FACET = 0.155, 2.3, 1.0, 1.1
# Panels of one row side by side, and letters in a line of their titles.
BESIDE, FACET_LETTERS = 5, 24
# Letters in a line of a label, what one takes of the panel's width, and where labels beside the
# panel and after the last point begin.
LETTERS, LETTER, MARGIN, GAP = 30, 0.0095, 1.04, 0.06
FRONT = "front"
# Ranges of cost and value.
Zoom = tuple[tuple[float, float], tuple[float, float]]
# A crowd: at least this many points within this factor of the median cost. It is shown without this
# share of lowest values, and only if the costs of all points span at least the last factor.
CROWD, NEAR, LOWEST, FAR_APART = 24, 1.3, 0.12, 2.0
# Ticks within each power of ten, by how far the axis reaches.
STEPS = {
    1.5: tuple(step / 10 for step in range(10, 100)),
    3: (1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 3.5, 4, 4.5, 5, 6, 7, 8, 9),
    10: (1, 1.5, 2, 3, 4, 5, 7),
}
FAR = (1, 2, 5)
WIDE: dict[str, Any] = {"color": theme.MUTED, "linewidth": 2.6, "alpha": 0.35}


def points(subject: Subject) -> pd.DataFrame:
    """Row, column, `macs`, the average with its interval, and whether it is on the `front`.

    macs   multiply-adds in total, mean over benchmarks and seeds; `bound` where it is a lower bound
    value  average over benchmarks in percent of the value with all tokens, which is a point itself

    ValueError without the counts of the arms.
    """
    facts = subject.needed("facts")
    spent = facts[facts["benchmark"].isin(list(subject.titles))]
    average = subject.comparison[subject.comparison["benchmark"] == AVERAGE]
    values = average.set_index(["row", "column"])[["value", "ci_low", "ci_high"]]
    whole = {"value": 100.0, "ci_low": np.nan, "ci_high": np.nan}
    lines = [{"row": ALL_TOKENS, "column": ALL} | _cost(spent, {ALL_TOKENS}) | whole]
    for cell in subject.ablation.cells:
        key = cell.row.key, cell.column.key or ALL
        cost = _cost(spent, {arm.name for arm in cell.arms})
        lines.append({"row": key[0], "column": key[1]} | cost | values.loc[key].to_dict())
    data = pd.DataFrame(lines)
    data[FRONT] = ~data["bound"] & on_front(
        data["macs"].to_numpy(np.float64), data["value"].to_numpy(np.float64), ~data["bound"]
    )
    return data


def on_front(
    cost: NDArray[np.float64], value: NDArray[np.float64], rivals: pd.Series | None = None
) -> NDArray[np.bool_]:
    """(n,) points that no rival beats: as cheap or cheaper, as good or better, not the same."""
    known = np.ones(len(cost), dtype=bool) if rivals is None else rivals.to_numpy(bool)
    no_worse = (cost[None, :] <= cost[:, None]) & (value[None, :] >= value[:, None])
    better = (cost[None, :] < cost[:, None]) | (value[None, :] > value[:, None])
    return ~(no_worse & better & known).any(axis=1)


def spread(wanted: NDArray[np.float64], gap: float) -> NDArray[np.float64]:
    """Places in [0, 1] as near as can be to the `wanted` ones (n,), in their order, `gap` apart.

    The gap is less where so many do not fit.
    """
    gap = min(gap, 1 / max(1, len(wanted) - 1))
    order = np.argsort(wanted, kind="stable")
    steps = gap * np.arange(len(wanted))
    fitted = isotonic_regression(wanted[order] - steps).x if len(wanted) else wanted
    found = np.empty_like(wanted)
    found[order] = np.clip(fitted, 0, 1 - steps[-1] if len(steps) else 1) + steps
    return found


def crowd(data: pd.DataFrame) -> Zoom | None:
    """The ranges of cost and value in which most points lie; None where they are not crowded.

    The cost is within a factor `NEAR` of the median. Of these points, the share `LOWEST` with the
    lowest values is left out.
    """
    own = data[data["row"] != ALL_TOKENS]
    middle = own["macs"].median()
    near = own[own["macs"].between(middle / NEAR, middle * NEAR)]
    if len(near) < CROWD or data["macs"].max() / data["macs"].min() < FAR_APART:
        return None
    bottom, top = near["value"].quantile(LOWEST), near["value"].max()
    inside = near[near["value"] >= bottom]
    gap = 0.06 * (top - bottom)
    across = (inside["macs"].min() / 1.015, inside["macs"].max() * 1.015)
    return across, (bottom - gap, top + gap)


@theme.style()
def draw(data: pd.DataFrame, subject: Subject) -> Figure:
    """The figure of `points`: the front by name; where these are crowded, a panel for each row.

    Each panel below has one row of the crowd in color and all others in gray, so that any of them
    is found.
    """
    ablation = subject.ablation
    names = {row.key: row.label for row in ablation.rows}
    marks = {c.key or ALL: theme.marker(place) for place, c in enumerate(ablation.columns)}
    shades = theme.colors(list(names))
    zoom = crowd(data)
    found = [] if zoom is None else _crowded(data, zoom)
    down = ceil(len(found) / BESIDE)
    heights = [PANEL + AROUND, FACET * down] if down else [PANEL + AROUND]
    drawn = theme.figure(theme.TEXT, sum(heights))
    parts = drawn.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    ax = parts[0].subplots()
    _draw_front(ax, data)
    for key, color in shades.items():
        _draw_row(ax, data[data["row"] == key], theme.MUTED if key in found else color, marks)
    _scale(ax)
    ax.set_ylim(*ax.get_ylim())
    fronts = set(data.loc[data[FRONT], "row"])
    beside = {key: theme.wrap(names[key], LETTERS) for key in names if key not in fronts}
    beside = {key: name for key, name in beside.items() if key not in found}
    _label_front(ax, data, names, shades)
    if beside:
        lines = max(name.count("\n") + 1 for name in beside.values())
        _label(ax, data, beside, shades, LABEL * lines / PANEL)
    ax.set_ylabel(f"average ({panels.AVERAGE_METRIC})")
    ax.set_xlabel("multiply-adds of a question")
    entries: dict[str, Artist] = {}
    if len(marks) > 1:
        labels = panels.column_axis(ablation).labels
        for label, mark in zip(labels, marks.values(), strict=True):
            entries[label] = Line2D([], [], color=theme.MUTED, marker=mark, linestyle="")
    panels.legend(drawn, [], entries | {"Pareto front": Line2D([], [], **WIDE)})
    if zoom is not None:
        _draw_facets(parts[1], data, {key: names[key] for key in found}, shades, marks, zoom)
    panels.note(
        drawn,
        f"Average over {subject.sample} against the multiply-adds of a question asked alone, up to "
        "its answer's first token: vision tower, choice of tokens and language model, counted by "
        "formulas.",
        f"Bars: {subject.confidence} intervals over images.",
        "Front: no other point is at least as accurate for less.",
        "Below, the crowd enlarged: each of its rows in color among the others." if found else "",
        "Hollow: a part has no formula, so the point lies further right; it is not on the front."
        if data["bound"].any()
        else "",
    )
    return drawn


def _crowded(data: pd.DataFrame, zoom: Zoom) -> list[str]:
    """The rows whose costliest point lies in the crowd, the best there first."""
    last = data[data["row"] != ALL_TOKENS].sort_values("macs").groupby("row").last()
    inside = last["macs"].between(*zoom[0]) & last["value"].between(*zoom[1])
    return list(last[inside].sort_values("value", ascending=False, kind="stable").index)


def _draw_facets(
    part: SubFigure,
    data: pd.DataFrame,
    names: Mapping[str, str],
    shades: Mapping[str, str],
    marks: Mapping[str, str],
    zoom: Zoom,
) -> None:
    """A small panel per row of `names`, all over the ranges of `zoom`."""
    grid = part.subplots(ceil(len(names) / BESIDE), BESIDE, squeeze=False, sharex=True, sharey=True)
    axes = list(grid.ravel())
    others = data[data["row"] != ALL_TOKENS]
    for ax in axes[len(names) :]:
        ax.set_axis_off()
    for (key, name), ax in zip(names.items(), axes, strict=False):
        _draw_front(ax, data)
        ax.plot(others["macs"], others["value"], ".", color=theme.RULE, markersize=3, zorder=1.5)
        _draw_row(ax, data[data["row"] == key], shades[key], marks)
        ax.set_title(theme.wrap(name, FACET_LETTERS), fontsize=7)
        ax.tick_params(labelsize=theme.SMALL)
    axes[0].set_xlim(*zoom[0])
    axes[0].set_ylim(*zoom[1])
    _scale(axes[0], most=4)
    for place, ax in enumerate(axes[: len(names)]):
        # Also above an empty place of the last row.
        ax.tick_params(labelbottom=place + BESIDE >= len(names))


def _draw_front(ax: Axes, data: pd.DataFrame) -> None:
    ax.set_xscale("log")
    front = data[data[FRONT]].sort_values("macs")
    ax.step(front["macs"], front["value"], where="post", zorder=1, **WIDE)
    whole = data[data["row"] == ALL_TOKENS]
    ax.plot(whole["macs"], whole["value"], marker="*", markersize=7, color=theme.INK, zorder=3)
    ax.grid(True, axis="both")


def _cost(spent: pd.DataFrame, arms: set[str]) -> dict[str, float | bool]:
    own = spent[spent["arm"].isin(arms)]
    parts = own[["encoder_macs", "selection_macs", "llm_macs"]]
    return {"macs": float(own["total_macs"].mean()), "bound": bool(parts.isna().any(axis=None))}


def _draw_row(ax: Axes, own: pd.DataFrame, color: str, marks: Mapping[str, str]) -> None:
    own = own.sort_values("macs")
    thin: dict[str, Any] = {"color": color, "linewidth": 0.8, "zorder": 2}
    ax.plot(own["macs"], own["value"], alpha=0.6, **thin)
    for line in own.itertuples():
        # Many points stand at nearly the same cost: intervals must not hide them.
        ax.vlines(line.macs, line.ci_low, line.ci_high, alpha=0.4, **thin)
        inside = "white" if line.bound else color
        point: dict[str, Any] = {"color": color, "markerfacecolor": inside, "markersize": 4}
        mark = marks[line.column]
        ax.plot(line.macs, line.value, marker=mark, markeredgewidth=0.9, zorder=3, **point)


def _label_front(
    ax: Axes, data: pd.DataFrame, names: Mapping[str, str], shades: Mapping[str, str]
) -> None:
    """Name each row of the front at its best point there, above to the left, where nothing lies.

    If the axis is too near for the name, it stands below the line to the right.
    """
    low, high = np.log(ax.get_xlim())
    style: dict[str, Any] = {"textcoords": "offset points", "fontsize": 7, "zorder": 4}
    front = data[data[FRONT]].sort_values("macs").groupby("row", sort=False).last()
    for key, point in front.iterrows():
        spot = (point["macs"], point["value"])
        if key == ALL_TOKENS:
            ax.annotate(panels.WHOLE, spot, xytext=(0, 6), ha="center", **style)
        else:
            name = theme.wrap(names[str(key)], LETTERS)
            width = LETTER * max(map(len, name.split("\n")))
            if (np.log(spot[0]) - low) / (high - low) > width:
                at: dict[str, Any] = {"xytext": (-4, 3), "ha": "right"}
            else:
                at = {"xytext": (4, -4), "ha": "left", "va": "top"}
            ax.annotate(name, spot, color=shades[str(key)], **at, **style)


def _label(
    ax: Axes, data: pd.DataFrame, names: dict[str, str], shades: dict[str, str], gap: float
) -> None:
    """Each row's name, joined with its costliest point: one below the other, `gap` apart.

    They stand between the rows' points and that of all tokens where there is room, else beside the
    panel.
    """
    last = data.sort_values("macs").groupby("row").last()
    whole, own = last.loc[ALL_TOKENS], last.loc[list(names)]
    low, high = np.log(ax.get_xlim())
    reach, star = (np.log([own["macs"].max(), whole["macs"]]) - low) / (high - low)
    width = LETTER * max(len(part) for name in names.values() for part in name.split("\n"))
    inside = reach + GAP + width < star - 0.01
    bottom, top = ax.get_ylim()
    wanted = ((own["value"] - bottom) / (top - bottom)).to_numpy(np.float64)
    style: dict[str, Any] = {"fontsize": 7, "annotation_clip": False}
    box = {"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none"}
    line = {"arrowstyle": "-", "linewidth": 0.6, "linestyle": (0, (1, 1.6)), "relpos": (0, 0.5)}
    beside = style | {"textcoords": "axes fraction", "va": "center", "zorder": 4, "bbox": box}
    for (key, point), place in zip(own.iterrows(), spread(wanted, gap), strict=True):
        at = (reach + GAP if inside else MARGIN, place)
        arrow = line | {"color": shades[str(key)], "shrinkA": 0, "shrinkB": 3}
        spot = (point["macs"], point["value"])
        ax.annotate(names[str(key)], spot, xytext=at, arrowprops=arrow, **beside)


def _scale(ax: Axes, most: int = 9) -> None:
    """Ticks within the limits of a logarithmic axis, `most` or fewer."""
    low, high = ax.get_xlim()
    within = next((steps for far, steps in STEPS.items() if high / low < far), FAR)
    powers = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    ticks = [step * 10.0**power for power in powers for step in within]
    ticks = [tick for tick in ticks if low <= tick <= high]
    ax.xaxis.set_major_locator(FixedLocator(ticks[:: max(1, ceil(len(ticks) / most))]))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: tick_text(value)))
    ax.xaxis.set_minor_locator(NullLocator())


def tick_text(value: float) -> str:
    """A tick's count without zeros after the point: 1.5 G, 200 M."""
    number, _, unit = count_text(value).partition(" ")
    return f"{float(number):g} {unit}".rstrip()


register("pareto", points=points, draw=draw)
