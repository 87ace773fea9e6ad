"""Histograms of phi, the information score of the images (the paper's figure 5)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from prunesid.study.analysis.association import spreads
from prunesid.study.config.study import Benchmark, Bootstrap
from prunesid.study.report import panels, theme

BINS = 30
SPREAD = ("images", "mean", "mean_low", "mean_high", "std", "std_low", "std_high")
# Bin edges on a round grid, so that another benchmark moves none of them by a little.
STEPS = (0.0025, 0.005, 0.01, 0.02, 0.025, 0.05, 0.1)


def histogram(
    information: pd.DataFrame, benchmarks: Sequence[Benchmark], bootstrap: Bootstrap
) -> pd.DataFrame:
    """Share of the images per bin (%), with mean and standard deviation of phi and intervals.

    `information` has columns benchmark and phi; the bins are the same for all benchmarks.
    ValueError where a benchmark has no images in it.
    """
    table = phi_of(information, benchmarks)
    edges = bin_edges(table["phi"].to_numpy(np.float64))
    known = spreads(table, bootstrap)
    parts = []
    for name in (b.name for b in benchmarks):
        counts, _ = np.histogram(table.loc[table["benchmark"] == name, "phi"], edges)
        share = 100 * counts / known[name].images
        bins = {"benchmark": name, "low": edges[:-1], "high": edges[1:], "frequency": share}
        parts.append(pd.DataFrame(bins | {n: getattr(known[name], n) for n in SPREAD}))
    return pd.concat(parts, ignore_index=True)


def phi_of(information: pd.DataFrame, benchmarks: Sequence[Benchmark]) -> pd.DataFrame:
    """The lines of these benchmarks. ValueError where one has none."""
    names = [b.name for b in benchmarks]
    table = information[information["benchmark"].isin(names)]
    missing = [name for name in names if name not in set(table["benchmark"])]
    if missing:
        raise ValueError(f"there are no information scores of {', '.join(missing)}")
    return table


def bin_edges(values: np.ndarray) -> np.ndarray:
    """Edges of at most 30 bins of a round width that hold all values (n,)."""
    low, high = float(values.min()), float(values.max())
    step = next((s for s in STEPS if (high - low) / s <= BINS), STEPS[-1])
    first, last = np.floor(low / step), np.floor(high / step) + 1
    # Rounding may put the ends on the wrong side of a value that lies on the grid.
    first -= first * step > low
    last += last * step <= high
    return np.arange(first, last + 1) * step


@theme.style()
def draw(data: pd.DataFrame, benchmarks: Sequence[Benchmark], confidence: float = 0.95) -> Figure:
    """The figure of `histogram`."""
    shades = theme.benchmark_colors([b.name for b in benchmarks])
    drawn = theme.figure(theme.COLUMN, 2.9 + 0.14 * len(benchmarks))
    ax = drawn.subplots()
    for place, benchmark in enumerate(benchmarks):
        own = data[data["benchmark"] == benchmark.name]
        first, color = own.iloc[0], shades[benchmark.name]
        edges = [*own["low"], own["high"].iloc[-1]]
        line: dict[str, Any] = {"linestyle": theme.DASHES[place % len(theme.DASHES)]}
        line |= {"linewidth": 1.2, "label": _label(benchmark, first)}
        ax.stairs(own["frequency"], edges, fill=True, color=color, alpha=0.16, linewidth=0)
        ax.stairs(own["frequency"], edges, color=color, **line)
        ax.axvline(first["mean"], 0.955, 1.0, color=color, linewidth=1.6, clip_on=False)
    ax.set_ylim(0, 1.12 * data["frequency"].max())
    for axis in (ax.xaxis, ax.yaxis):
        panels.steady_ticks(axis)
    ax.set_xlabel("information score φ = 1 − ρ")
    ax.set_ylabel("images (%)")
    drawn.legend(loc="outside upper left", handlelength=2.2)
    panels.note(
        drawn,
        "Marks at the top: means. In brackets: mean and standard deviation over images, with the "
        f"{100 * confidence:g} % interval of the latter.",
    )
    return drawn


def _label(benchmark: Benchmark, own: "pd.Series[float]") -> str:
    if np.isnan(own["std"]):
        return f"{benchmark.title} ({own['mean']:.3f}, 1 image)"
    return (
        f"{benchmark.title} ({own['mean']:.3f}, {own['std']:.3f} from {own['std_low']:.3f} to "
        f"{own['std_high']:.3f}; {int(own['images']):,} images)"
    )


def write_information(
    information: pd.DataFrame,
    benchmarks: Sequence[Benchmark],
    bootstrap: Bootstrap,
    paths: Sequence[Path],
) -> None:
    """Write the histograms to every path by its suffix: .pdf, .svg, .png, and .csv."""
    data = histogram(information, benchmarks, bootstrap)
    theme.write(draw(data, benchmarks, bootstrap.confidence), data, paths)
