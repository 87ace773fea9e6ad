"""Shared by the kinds of figures: axes, panels per benchmark, notes and legends."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import XAxis, YAxis
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from prunesid.study.analysis.comparison import ALL, AVERAGE, OVERALL
from prunesid.study.analysis.metrics import statistic
from prunesid.study.analysis.strata import FAMILY, PHI
from prunesid.study.config.ablation import RESERVED_AXES, Ablation, is_number
from prunesid.study.config.arm import ALL_TOKENS, text
from prunesid.study.config.study import Benchmark
from prunesid.study.report import theme
from prunesid.study.report.figures import Subject
from prunesid.study.report.table import LEVEL, signed

NAMES = {"budget": "visual tokens kept", "num_groups": "groups K", "layer": "ViT block"}
STRATA = {FAMILY: "by question family", PHI: "by information score φ: thirds of the images"}
AVERAGE_METRIC = "% of all tokens"
WHOLE = "all tokens"
ACROSS = 3
FACETS = "|"
LEGEND_LETTERS_PER_INCH = 10.4
NUMBERS = (
    *("value", "ci_low", "ci_high", "spread", "seeds", "unit"),
    *("diff", "diff_low", "diff_high", "p_holm", "detectable"),
)


@dataclass(frozen=True)
class Series:
    """The look of one value of an axis."""

    value: str
    label: str
    color: str
    marker: str


@dataclass(frozen=True)
class Axis:
    """The values that an axis takes, in order, with what is shown for each."""

    name: str
    values: tuple[str, ...]
    labels: tuple[str, ...]

    @property
    def numeric(self) -> bool:
        return all(is_number(value) for value in self.values)

    @property
    def series(self) -> list[Series]:
        """A series per value, in order."""
        shades = theme.colors(self.values)
        return [
            Series(value, label, shades[value], theme.marker(place))
            for place, (value, label) in enumerate(zip(self.values, self.labels, strict=True))
        ]

    @property
    def title(self) -> str:
        """The axis label; none for whole settings, whose own labels say all."""
        if self.name in RESERVED_AXES:
            return ""
        return NAMES.get(self.name, self.name.replace("_", " "))


def axis(ablation: Ablation, name: str) -> Axis:
    """The axis of that name: 'row', 'column', or one that rows or columns have.

    A value has the label of the setting that consists of it alone, where there is one.
    """
    whole = {"row": ablation.rows, "column": ablation.columns}
    if name in whole:
        settings = whole[name]
        return Axis(name, tuple(s.key or ALL for s in settings), tuple(s.label for s in settings))
    settings = (*ablation.rows, *ablation.columns)
    values = dict.fromkeys(text(s.as_dict()[name]) for s in settings if name in s.as_dict())
    alone = {s.key: s.label for s in reversed(settings)}
    labels = tuple(alone.get(f"{name}={value}", value) for value in values)
    return Axis(name, tuple(values), labels)


def column_axis(ablation: Ablation) -> Axis:
    """The ablation's columns, as the one axis they consist of where there is but one."""
    names = {axis for column in ablation.columns for axis, _ in column.values}
    alone = len(names) == 1 and all(column.values for column in ablation.columns)
    return axis(ablation, next(iter(names)) if alone else "column")


def panels_of(data: pd.DataFrame, subject: Subject) -> list[tuple[pd.DataFrame, str, str]]:
    """The points, the title and the label of the values of each panel of `panel_points`."""
    titles = subject.titles | {AVERAGE: "Average"}
    metrics = {b.name: _metric(b) for b in subject.benchmarks} | {AVERAGE: AVERAGE_METRIC}
    by_panel = data.groupby("panel", sort=False)
    return [(own, titles[str(name)], metrics[str(name)]) for name, own in by_panel]


def facets_of(data: pd.DataFrame, subject: Subject) -> list[tuple[str, pd.DataFrame]]:
    """(title, points) of each repetition of the panels; without facets a single one, titled ''.

    data  has the column 'facet'; it is '' for the all-token arm, which is in every repetition
    """
    names = subject.ablation.figure.facets
    if not names:
        return [("", data)]
    whole = data["hue"] == theme.VANILLA
    titles = [axis(subject.ablation, name).title for name in names]
    found = []
    for facet in dict.fromkeys(data.loc[~whole, "facet"]):
        values = zip(titles, facet.split(FACETS), strict=True)
        own = data[whole | (data["facet"] == facet)]
        found.append((", ".join(f"{title} {value}" for title, value in values), own))
    return found


def _metric(benchmark: Benchmark) -> str:
    counted = statistic(benchmark.statistic)
    return f"{counted.label} ({counted.unit})"


def panel_points(subject: Subject, **places: str) -> pd.DataFrame:
    """The comparison's lines per column as points: panel, `places`, and the numbers of each.

    The panels are the benchmarks in order, then the average over them; the average over columns is
    left out. With facets, the column 'facet' holds the values of their axes.

    places  {new column: the comparison's column that it copies}. The all-token arm has 'vanilla' in
            'hue' and '' in all others
    """
    kept = subject.comparison[subject.comparison["column"] != OVERALL].copy()
    vanilla = kept["row"] == ALL_TOKENS
    kept["panel"] = kept["benchmark"]
    for place, column in places.items():
        kept[place] = kept[column].where(~vanilla, theme.VANILLA if place == "hue" else "")
    facets = list(subject.ablation.figure.facets)
    if facets:
        kept["facet"] = kept[facets].agg(FACETS.join, axis=1).where(~vanilla, "")
        places |= {"facet": "facet"}
    order = {name: place for place, name in enumerate([*subject.titles, AVERAGE])}
    kept = kept[kept["panel"].isin(order)]
    kept = kept.sort_values("panel", key=lambda names: names.map(order), kind="stable")
    return kept[["panel", *places, *NUMBERS]]


def across(count: int) -> int:
    """Panels beside one another: three, but two where four make a square."""
    return 2 if count == 4 else min(ACROSS, count)


def steady_ticks(axis: XAxis | YAxis, most: int = 5) -> None:
    """Limit the ticks to `most` intervals, so that no more of them appear after the layout.

    The layout would not have made room for their labels.
    """
    axis.set_major_locator(MaxNLocator(most, steps=[1, 2, 2.5, 5, 10]))


def strata(data: pd.DataFrame) -> list[tuple[str, str]]:
    """Benchmark and stratum of the lines, each once, in their order."""
    return list(dict.fromkeys(zip(data["benchmark"], data["stratum"], strict=True)))


def named(ax: Axes) -> dict[str, Artist]:
    """The entries of a legend of these axes, by label."""
    handles, labels = ax.get_legend_handles_labels()
    return dict(zip(labels, handles, strict=True))


def legend(
    drawn: Figure, empty: Sequence[Axes], entries: Mapping[str, Artist], title: str = ""
) -> None:
    """The legend, in the place of a missing panel if there is one, else above all."""
    for ax in empty:
        ax.set_axis_off()
    handles, labels = list(entries.values()), list(entries)
    if not labels:
        return
    if empty:
        empty[-1].legend(handles, labels, loc="center", title=title or None, alignment="left")
    else:
        room = int(LEGEND_LETTERS_PER_INCH * drawn.get_figwidth())
        columns = max(1, min(len(labels), room // (6 + max(map(len, labels)))))
        drawn.legend(
            handles, labels, loc="outside upper center", ncols=columns, title=title or None
        )


def note(drawn: Figure, *sentences: str) -> None:
    """Small print at the foot of a figure, wrapped to its width: what its marks mean."""
    letters = int(drawn.get_figwidth() * theme.LETTERS_PER_INCH)
    shown = theme.wrap(" ".join(s for s in sentences if s), letters)
    style: dict[str, Any] = {"fontsize": theme.SMALL, "color": theme.MUTED, "linespacing": 1.3}
    # The label of the figure's horizontal axis is the one text below all panels that the layout
    # makes room for.
    drawn.supxlabel(shown, x=0.01, ha="left", **style)


def note_of(drawn: Figure) -> str:
    """The small print of a figure in one line."""
    return " ".join(drawn.get_supxlabel().split())


def marks_note(data: pd.DataFrame, subject: Subject, gray: str) -> str:
    """The meaning of bars, of hollow marks and of the `gray` mark, '' where there is none."""
    seeds, reference = int(data["seeds"].max()), subject.ablation.reference.label
    thick = f"; thick bars: ± standard deviation over {seeds} seeds" if seeds > 1 else ""
    said = [f"Thin bars: {subject.confidence} intervals over images{thick}."]
    if data["p_holm"].notna().any():
        said.append(
            f"Hollow marks: no difference from {reference} in the same column that survives Holm's "
            f"correction (p < {LEVEL:g})."
        )
    if gray:
        said.append(
            f"Gray {gray}: smallest difference from {reference} that a test would find with a "
            "power of 80 % (the panel's largest)."
        )
    return " ".join(said)


def significant(points: pd.DataFrame) -> NDArray[np.bool_]:
    """The points that differ from the reference after correction; the reference itself counts."""
    tested = points["p_holm"].notna().to_numpy()
    return ~tested | (points["p_holm"] < LEVEL).to_numpy()


def draw_points(
    ax: Axes,
    at: NDArray[np.float64],
    points: pd.DataFrame,
    series: Series,
    *,
    line: str = "none",
    of: str = "value",
    sideways: bool = False,
) -> None:
    """Values with interval, spread over seeds, and hollow marks where nothing differs.

    at        places of the points, along the horizontal axis or, `sideways`, the vertical one
    line, of  the style of the line through them, and 'value' or 'diff'
    """
    size = points[of].to_numpy(np.float64)
    low, high = {"value": ("ci_low", "ci_high"), "diff": ("diff_low", "diff_high")}[of]
    reach = np.stack([size - points[low], points[high] - size])
    spread = points["spread"].to_numpy(np.float64)
    some, hollow = ~np.isnan(spread), ~significant(points)
    xerr, yerr = (reach, None) if sideways else (None, reach)
    x, y = (size, at) if sideways else (at, size)
    thick, color = ax.hlines if sideways else ax.vlines, series.color
    style: dict[str, Any] = {"elinewidth": 0.8, "capsize": 1.6, "markeredgewidth": 0.9}
    style |= {"color": color, "markeredgecolor": color, "marker": series.marker}
    ax.errorbar(x, y, yerr, xerr, linestyle=line, label=series.label, **style)
    ends = (size - spread)[some], (size + spread)[some]
    thick(at[some], *ends, color=color, linewidth=2.6, alpha=0.45)
    draw_hollow(ax, x[hollow], y[hollow], series)


def lines_beside(count: int, place: int, series: int) -> NDArray[np.float64]:
    """(count,) places on the vertical axis, a line each, of one of several series side by side."""
    return np.arange(count, dtype=np.float64) + (place - (series - 1) / 2) * 0.8 / max(series, 2)


def lines_down(ax: Axes, count: int) -> None:
    """An axis of `count` lines from above, with a grid along them."""
    ax.set_ylim(count - 0.4, -0.6)
    ax.grid(True, axis="x")
    ax.grid(False, axis="y")
    ax.tick_params(axis="y", length=0)


def draw_zero(ax: Axes, upright: bool = True) -> None:
    """The line of no difference."""
    line = ax.axvline if upright else ax.axhline
    line(0, color=theme.MUTED, linewidth=0.8, zorder=0.8)


def draw_heat(
    ax: Axes, table: pd.DataFrame, sure: pd.DataFrame, reach: float, aspect: Any = "equal"
) -> AxesImage:
    """Differences in points (rows x columns) as colors with numbers; * where they are `sure`.

    reach  the difference of the strongest color
    """
    image = ax.imshow(table, cmap="RdBu", vmin=-reach, vmax=reach, aspect=aspect)
    for y, x in product(*map(range, table.shape)):
        value = table.iat[y, x]
        if not np.isnan(value):
            shown = f"{signed(value, 0)}{'*' if sure.iat[y, x] else ''}"
            color = "white" if abs(value) > 0.6 * reach else theme.INK
            ax.text(x, y, shown, ha="center", va="center", fontsize=theme.SMALL, color=color)
    ax.tick_params(length=0)
    ax.grid(False)
    return image


def draw_hollow(
    ax: Axes, x: NDArray[np.float64], y: NDArray[np.float64], series: Series, **style: Any
) -> None:
    """Marks with white inside over those that are there."""
    style |= {"color": "white", "markeredgecolor": series.color, "markeredgewidth": 0.9}
    ax.plot(x, y, marker=series.marker, linestyle="none", zorder=5, **style)


def draw_whole(ax: Axes, points: pd.DataFrame, upright: bool = False) -> Artist:
    """The line of the model with all its tokens, across the panel or `upright`."""
    vanilla = points.loc[points["hue"] == theme.VANILLA, "value"]
    whole = float(vanilla.iloc[0]) if len(vanilla) else 100.0
    line = ax.axvline if upright else ax.axhline
    return line(whole, color=theme.INK, linewidth=0.9, linestyle=(0, (4, 2)), label=WHOLE)


def draw_detectable(ax: Axes, points: pd.DataFrame) -> bool:
    """Draw a gray bar as tall as the smallest detectable difference; False where there is none."""
    size = points["detectable"].max()
    if not size > 0:
        return False
    low, high = ax.get_ylim()
    size = min(float(size), high - low)
    foot = min(low + 0.03 * (high - low), high - size)
    at = ax.get_yaxis_transform()
    ax.vlines(0.99, foot, foot + size, theme.BAND, linewidth=3.0, transform=at, zorder=0.5)
    return True
