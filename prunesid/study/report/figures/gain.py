"""The gain over the reference against the spread of the information score, a point per benchmark.

The question of the paper's section 4.3: does a dynamic budget gain more where images differ more?
One panel per row of the ablation, color for its columns, Spearman's rank correlation beside each.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import norm

from prunesid.study.analysis.association import rank_correlation, spreads
from prunesid.study.config.arm import ALL_TOKENS
from prunesid.study.report import panels, theme
from prunesid.study.report.figures import Subject, register
from prunesid.study.report.information import phi_of

# The axis of gains reaches at least this far, in percent of all tokens.
LEAST_GAIN = 1.0
PANEL_HEIGHT = 2.75
# Benchmarks nearer to each other than this share of the axis have one label together.
NEAR = 0.06
GAINS = {"diff": "gain", "diff_low": "gain_low", "diff_high": "gain_high"}


def points(subject: Subject) -> pd.DataFrame:
    """Row, column, benchmark, phi's mean and standard deviation, the gain, and the correlation.

    Gains are differences from the reference row as a percentage of the all-token value, which
    lets benchmarks of different units share an axis. The correlation (`r_*`) is one per row and
    column, over the benchmarks. ValueError without information scores of the benchmarks.
    """
    ablation, bootstrap = subject.ablation, subject.bootstrap
    known = spreads(phi_of(subject.needed("information"), subject.benchmarks), bootstrap)
    names = list(subject.titles)
    lines = subject.comparison.set_index(["row", "column", "benchmark"]).sort_index()
    whole = lines.loc[ALL_TOKENS, panels.ALL].loc[names, "value"]
    about = pd.DataFrame([asdict(known[name]) for name in names], index=names).add_prefix("phi_")
    width = 2 * norm.ppf((1 + bootstrap.confidence) / 2)
    tables = []
    for cell in ablation.cells:
        row, key = cell.row, cell.column.key or panels.ALL
        if row == ablation.reference:
            continue
        own = lines.loc[row.key, key].loc[names]
        gain = (100 * own[list(GAINS)]).div(whole, axis=0).rename(columns=GAINS)
        error = (gain["gain_high"] - gain["gain_low"]) / width
        place = {"row": row.key, "column": key, "benchmark": names}
        table = pd.concat([pd.DataFrame(place, index=names), about, gain], axis=1)
        table = table.assign(gain_error=error, p_holm=own["p_holm"])
        pairs = table.dropna(subset=["phi_std", "gain"])
        numbers = ("phi_std", "gain", "phi_std_error", "gain_error")
        x, y, x_error, y_error = (pairs[name].tolist() for name in numbers)
        name = f"{row.key} {cell.column.key}"
        correlation = rank_correlation(x, y, x_error, y_error, bootstrap, name)
        tables.append(table.assign(**{f"r_{k}": v for k, v in asdict(correlation).items()}))
    return pd.concat(tables, ignore_index=True)


@theme.style()
def draw(data: pd.DataFrame, subject: Subject) -> Figure:
    """The figure of `points`."""
    reference = subject.ablation.reference
    rows = [row for row in subject.ablation.rows if row != reference]
    drawn = theme.figure(theme.TEXT if len(rows) > 1 else theme.COLUMN, PANEL_HEIGHT + 0.5)
    axes = drawn.subplots(1, len(rows), squeeze=False, sharey=True)[0]
    for row, ax in zip(rows, axes, strict=True):
        _draw_panel(ax, data[data["row"] == row.key], subject)
        ax.set_title(row.label)
        ax.set_xlabel("spread of φ over images (standard deviation)")
    axes[0].set_ylabel(f"gain over “{reference.label}”\n({panels.AVERAGE_METRIC})")
    low, high = axes[0].get_ylim()
    # Where no answer changed there is nothing to see but zero, and no scale of rounding errors.
    axes[0].set_ylim(min(low, -LEAST_GAIN), max(high, LEAST_GAIN))
    least, count = data["r_least_p"].min(), int(data["r_count"].max())
    panels.note(
        drawn,
        f"Bars: {subject.confidence} intervals over images. r: Spearman's rank correlation over "
        "the benchmarks, its interval from redrawing both numbers with their errors.",
        "" if np.isnan(least) else f"Over {count} benchmarks no r has a p below {least:.2g}.",
        "Filled marks: a gain that survives Holm's correction (p < 0.05).",
    )
    return drawn


def _draw_panel(ax: Axes, own: pd.DataFrame, subject: Subject) -> None:
    # A benchmark of one image has no spread, and so no place here.
    own = own[own["phi_std"].notna()]
    if own.empty:
        return
    columns = panels.column_axis(subject.ablation)
    reach = max(float(np.ptp(own["phi_std"])), 1e-6)
    panels.draw_zero(ax, upright=False)
    settings = zip(subject.ablation.columns, columns.series, strict=True)
    for place, (setting, series) in enumerate(settings):
        line = own[own["column"] == (setting.key or panels.ALL)]
        if line.empty:
            continue
        shift = (place - (len(columns.values) - 1) / 2) * 0.016 * reach
        at, gain = line["phi_std"].to_numpy() + shift, line["gain"].to_numpy()
        said = f"{series.label}: " if len(columns.values) > 1 else ""
        wide = line["phi_std"] - line["phi_std_low"], line["phi_std_high"] - line["phi_std"]
        tall = gain - line["gain_low"], line["gain_high"] - gain
        look: dict[str, Any] = {"marker": series.marker, "color": series.color, "linestyle": "none"}
        bars: dict[str, Any] = {
            "markerfacecolor": "none",
            "elinewidth": 0.7,
            "markeredgewidth": 0.9,
        }
        label = f"{said}{_correlation(line.iloc[0])}"
        ax.errorbar(at, gain, tall, wide, label=label, **look, **bars)
        filled = panels.significant(line)
        ax.plot(at[filled], gain[filled], **look)
    for axis in (ax.xaxis, ax.yaxis):
        panels.steady_ticks(axis)
    above = ax.secondary_xaxis("top")
    places = own.drop_duplicates("benchmark").set_index("benchmark")["phi_std"].sort_values()
    left, right = ax.get_xlim()
    titles = [subject.titles[name] for name in places.index]
    labels = label_together(places.tolist(), titles, NEAR * (right - left))
    above.set_xticks(list(places), labels, rotation=35, ha="left", rotation_mode="anchor")
    above.tick_params(length=2)
    above.spines["top"].set_visible(False)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.26), handletextpad=0.4)


def label_together(places: Sequence[float], labels: Sequence[str], near: float) -> list[str]:
    """One label for neighbors less than `near` apart, at the first of them; "" at the others.

    places (n,) ascending.
    """
    found: list[str] = []
    first = 0
    for number, (place, label) in enumerate(zip(places, labels, strict=True)):
        if number and place - places[number - 1] < near:
            found[first] += f", {label}"
            found.append("")
        else:
            first = number
            found.append(label)
    return found


def _correlation(line: pd.Series) -> str:
    if np.isnan(line["r_value"]):
        return "r undefined"
    value, low, high = (
        f"{line[f'r_{name}']:+.2f}".replace("-", "−") for name in ("value", "low", "high")
    )
    return f"r = {value} [{low}, {high}], p = {line['r_p']:.2f}"


register("gain", points=points, draw=draw)
