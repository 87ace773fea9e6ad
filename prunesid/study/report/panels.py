"""Shared by the kinds of figures: axes, panels per benchmark, notes and legends."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import ceil
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
from prunesid.study.config.ablation import RESERVED_AXES, Ablation, Setting
from prunesid.study.config.arm import ALL_TOKENS, text
from prunesid.study.config.study import Benchmark
from prunesid.study.report import theme

NAMES = {"budget": "visual tokens kept", "num_groups": "groups K", "layer": "ViT block"}
METRICS = {
    "mean": "accuracy (%)", "weighted": "relative mark (%)", "f1": "F1 (%)",
    "mme": "score (points)",
}  # fmt: skip
AVERAGE_METRIC = "% of all tokens"
WHOLE = "all tokens"
LEVEL = 0.05
ACROSS = 3
LEGEND_LETTERS_PER_INCH = 10.4
NUMBERS = (
    "value", "ci_low", "ci_high", "spread", "seeds", "unit", "diff", "diff_low", "diff_high",
    "p_holm", "detectable",
)  # fmt: skip


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
    def title(self) -> str:
        """The axis label; none for whole settings, whose own labels say all."""
        if self.name in RESERVED_AXES:
            return ""
        return NAMES.get(self.name, self.name.replace("_", " "))


def is_number(value: str) -> bool:
    """Whether a value, as text, has a place on a numeric axis."""
    return value.replace(".", "", 1).isdigit()


def points_text(difference: float) -> str:
    """A difference in whole points with its sign; no sign for 0."""
    whole = round(difference)
    return f"{whole:+d}".replace("-", "−") if whole else "0"


def axis(ablation: Ablation, name: str) -> Axis:
    """The axis of that name: 'row', 'column', or one that rows or columns have."""
    whole = {"row": ablation.rows, "column": ablation.columns}
    if name in whole:
        settings = whole[name]
        return Axis(name, tuple(s.key or ALL for s in settings), tuple(s.label for s in settings))
    settings = (*ablation.rows, *ablation.columns)
    values = dict.fromkeys(text(s.as_dict()[name]) for s in settings if name in s.as_dict())
    return Axis(name, tuple(values), tuple(_label(settings, name, value) for value in values))


def column_axis(ablation: Ablation) -> Axis:
    """The ablation's columns, as the one axis they consist of where there is but one."""
    names = {axis for column in ablation.columns for axis, _ in column.values}
    alone = len(names) == 1 and all(column.values for column in ablation.columns)
    return axis(ablation, next(iter(names)) if alone else "column")


def _label(settings: Sequence[Setting], name: str, value: str) -> str:
    """A value's label where some setting consists of it alone, else the value."""
    alone = (s.label for s in settings if s.key == f"{name}={value}")
    return next(alone, value)


def panel_titles(benchmarks: Sequence[Benchmark]) -> dict[str, str]:
    """The panels of a figure in order, the average last, each with its title."""
    return {b.name: b.title for b in benchmarks} | {AVERAGE: "Average"}


def metric(panel: str, benchmarks: Sequence[Benchmark]) -> str:
    """The label of a panel's vertical axis."""
    if panel == AVERAGE:
        return AVERAGE_METRIC
    return next(METRICS[b.statistic] for b in benchmarks if b.name == panel)


def panel_points(
    comparison: pd.DataFrame, benchmarks: Sequence[Benchmark], places: Mapping[str, str]
) -> pd.DataFrame:
    """The comparison's lines per column as points: panel, `places`, and the numbers of each.

    places  {name of the new column: column of the comparison}, 'hue' among them, where the
            all-token arm is 'vanilla'; elsewhere it has none. The average over columns is left out.
    """
    kept = comparison[comparison["column"] != OVERALL].copy()
    vanilla = kept["row"] == ALL_TOKENS
    kept["panel"] = kept["benchmark"]
    for place, column in places.items():
        kept[place] = kept[column].where(~vanilla, theme.VANILLA if place == "hue" else "")
    order = {name: place for place, name in enumerate(panel_titles(benchmarks))}
    kept = kept[kept["panel"].isin(order)]
    kept = kept.sort_values("panel", key=lambda names: names.map(order), kind="stable")
    return kept[["panel", *places, *NUMBERS]]


def across(count: int) -> int:
    """Panels beside one another: three, but two where four make a square."""
    return 2 if count == 4 else min(ACROSS, count)


def subplots(count: int, height: float, extra: float = 0.0) -> tuple[Figure, list[Axes]]:
    """A figure of text width with a grid of at least `count` panels of that height in inches."""
    wide = across(count)
    down = ceil(count / wide)
    drawn = theme.figure(theme.TEXT * wide / ACROSS, height * down + extra)
    return drawn, list(drawn.subplots(down, wide, squeeze=False).ravel())


def steady_ticks(axis: XAxis | YAxis, most: int = 5) -> None:
    """As many ticks as before the layout: more of them after it would be wider than it knew."""
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
        drawn.legend(handles, labels, loc="outside upper center", ncols=columns)


def note(drawn: Figure, sentences: Sequence[str]) -> None:
    """Small print at the foot of a figure, wrapped to its width: what its marks mean."""
    letters = int(drawn.get_figwidth() * theme.LETTERS_PER_INCH)
    # The label of the figure's horizontal axis is the one text below all panels that the layout
    # makes room for.
    drawn.supxlabel(
        theme.wrap(" ".join(s for s in sentences if s), letters),
        x=0.01, ha="left", fontsize=theme.SMALL, color=theme.MUTED, linespacing=1.3,
    )  # fmt: skip


def note_of(drawn: Figure) -> str:
    """The small print of a figure in one line."""
    return " ".join(drawn.get_supxlabel().split())


def sample_text(comparison: pd.DataFrame, benchmarks: Sequence[Benchmark]) -> str:
    """The sample of every row: 'GQA, SQA (2,023 questions on 440 images)'."""
    whole = comparison[comparison["row"] == ALL_TOKENS]
    asked = whole[whole["benchmark"].isin([b.name for b in benchmarks])]
    questions, images = (int(asked[name].sum()) for name in ("questions", "images"))
    titles = ", ".join(b.title for b in benchmarks)
    return f"{titles} ({questions:,} questions on {images:,} images)"


def bars_note(points: pd.DataFrame, confidence: float) -> str:
    """The meaning of the bars of a figure's points."""
    seeds = int(points["seeds"].max())
    thick = f"; thick bars: ± standard deviation over {seeds} seeds" if seeds > 1 else ""
    return f"Thin bars: {100 * confidence:g} % intervals over images{thick}."


def tests_note(points: pd.DataFrame, reference: str) -> str:
    """The meaning of filled and hollow marks."""
    if points["p_holm"].notna().sum() == 0:
        return ""
    return (
        f"Hollow marks: no difference from {reference} in the same column that survives Holm's "
        f"correction (p < {LEVEL:g})."
    )


def detectable_note(reference: str, mark: str = "bar") -> str:
    """The meaning of the gray bar or band."""
    return (
        f"Gray {mark}: smallest difference from {reference} that a test would find with a power of "
        "80 % (the panel's largest)."
    )


def significant(points: pd.DataFrame) -> NDArray[np.bool_]:
    """Which points differ from the reference after correction; the reference itself counts."""
    tested = points["p_holm"].notna().to_numpy()
    return ~tested | (points["p_holm"] < LEVEL).to_numpy()


def draw_points(
    ax: Axes,
    at: NDArray[np.float64],
    points: pd.DataFrame,
    color: str,
    marker: str,
    label: str,
    line: str = "-",
    *,
    of: str = "value",
    sideways: bool = False,
) -> None:
    """Values with interval, spread over seeds, and hollow marks where nothing differs.

    at        places of the points, along the horizontal axis or, `sideways`, the vertical one
    of, line  'value' or 'diff', and the style of the line through them
    """
    size = points[of].to_numpy(np.float64)
    low, high = {"value": ("ci_low", "ci_high"), "diff": ("diff_low", "diff_high")}[of]
    reach = np.stack([size - points[low], points[high] - size])
    spread = points["spread"].to_numpy(np.float64)
    some, hollow = ~np.isnan(spread), ~significant(points)
    xerr, yerr = (reach, None) if sideways else (None, reach)
    x, y = (size, at) if sideways else (at, size)
    thick = ax.hlines if sideways else ax.vlines
    ax.errorbar(
        x, y, xerr=xerr, yerr=yerr, marker=marker, linestyle=line, color=color, elinewidth=0.8,
        capsize=1.6, markeredgecolor=color, markeredgewidth=0.9, label=label,
    )  # fmt: skip
    thick(
        at[some], (size - spread)[some], (size + spread)[some], color=color, linewidth=2.6,
        alpha=0.45,
    )  # fmt: skip
    draw_hollow(ax, x[hollow], y[hollow], marker, color)


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
            ax.text(
                x, y, f"{points_text(value)}{'*' if sure.iat[y, x] else ''}", ha="center",
                va="center", fontsize=theme.SMALL,
                color="white" if abs(value) > 0.6 * reach else theme.INK,
            )  # fmt: skip
    ax.tick_params(length=0)
    ax.grid(False)
    return image


def draw_hollow(
    ax: Axes,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    marker: str,
    color: str,
    **style: Any,
) -> None:
    """Marks with white inside over those that are there."""
    ax.plot(
        x, y, marker=marker, linestyle="none", color="white", markeredgecolor=color,
        markeredgewidth=0.9, zorder=5, **style,
    )  # fmt: skip


def draw_whole(ax: Axes, points: pd.DataFrame, upright: bool = False) -> Artist:
    """The line of the model with all its tokens, across the panel or `upright`."""
    vanilla = points.loc[points["hue"] == theme.VANILLA, "value"]
    whole = float(vanilla.iloc[0]) if len(vanilla) else 100.0
    line = ax.axvline if upright else ax.axhline
    return line(
        whole, color=theme.COLORS[theme.VANILLA], linewidth=0.9, linestyle=(0, (4, 2)), label=WHOLE
    )


def draw_detectable(ax: Axes, points: pd.DataFrame) -> bool:
    """Draw a gray bar as tall as the smallest detectable difference; False where there is none."""
    size = points["detectable"].max()
    if not size > 0:
        return False
    low, high = ax.get_ylim()
    size = min(float(size), high - low)
    foot = min(low + 0.03 * (high - low), high - size)
    ax.vlines(
        0.99, foot, foot + size, transform=ax.get_yaxis_transform(), color=theme.BAND,
        linewidth=3.0, zorder=0.5,
    )  # fmt: skip
    return True
