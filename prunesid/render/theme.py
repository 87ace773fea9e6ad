"""One look for every figure and table: seaborn's theme, one color per method, paper-column sizes.

    with theme.style():
        figure = theme.figure(theme.COLUMN, 2.4)
        ...
    theme.save(figure, path)

Colors are seaborn's color-blind-safe palette. Nothing process-wide changes, and a saved file holds
no date, version or random id, so that the same numbers give the same bytes.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import matplotlib
import seaborn as sns
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from prunesid.files import atomic

COLUMN, TEXT = 3.35, 6.9
INK, MUTED, RULE = "#1f2328", "#636c76", "#c9d1d9"
PALETTE: tuple[str, ...] = tuple(sns.color_palette("colorblind").as_hex())
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "<", ">", "*")
COLORS = {
    "prunesid": PALETTE[0],
    "psca": PALETTE[0],
    "kmeans": PALETTE[1],
    "random": PALETTE[7],
    "grid": PALETTE[5],
    "cls_topk": PALETTE[4],
    "vanilla": INK,
}

_METADATA = {
    ".pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    ".svg": {"Date": None, "Creator": None},
    ".png": {"Software": None},
}


@contextmanager
def style() -> Iterator[None]:
    """The theme, for the block only."""
    settings = {
        **sns.axes_style("ticks"),
        **sns.plotting_context("paper", font_scale=0.85),
        "font.family": "DejaVu Sans",
        "axes.edgecolor": MUTED,
        "axes.labelcolor": INK,
        "axes.linewidth": 0.7,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.grid": True,
        "axes.grid.axis": "y",
        "grid.color": "#e6e9ed",
        "grid.linewidth": 0.6,
        "legend.frameon": False,
        "lines.linewidth": 1.5,
        "lines.markersize": 4.5,
        "pdf.fonttype": 42,
        "savefig.dpi": 200,
        "svg.fonttype": "path",
        "svg.hashsalt": "prunesid",
        "text.color": INK,
        "xtick.color": MUTED,
        "xtick.labelcolor": INK,
        "xtick.major.width": 0.7,
        "ytick.color": MUTED,
        "ytick.labelcolor": INK,
        "ytick.major.width": 0.7,
    }
    with matplotlib.rc_context(settings):
        yield


def figure(width: float, height: float) -> Figure:
    """An empty figure of that size in inches, outside pyplot's global state."""
    drawn = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(drawn)
    return drawn


def colors(names: Sequence[str]) -> dict[str, str]:
    """A color per name: a method's or grouping's own, a sequence for numbers, else a free one."""
    if len(names) > 1 and all(_is_number(name) for name in names):
        ordered = sorted(names, key=float)
        return dict(zip(ordered, sns.color_palette("viridis", len(ordered)).as_hex(), strict=True))
    taken = {COLORS[name] for name in names if name in COLORS}
    free = [color for color in PALETTE if color not in taken] or list(PALETTE)
    others = [name for name in names if name not in COLORS]
    return {name: COLORS[name] for name in names if name in COLORS} | {
        name: free[place % len(free)] for place, name in enumerate(others)
    }


def save(drawn: Figure, path: Path) -> None:
    """Write a figure as its suffix says (.pdf, .svg, .png): atomic, the same bytes each time."""
    suffix = path.suffix.lower()
    if suffix not in _METADATA:
        raise ValueError(f"{path}: figures are saved as {', '.join(_METADATA)}")
    with style(), atomic(path) as part:
        drawn.savefig(part, format=suffix[1:], metadata=_METADATA[suffix])


def _is_number(name: str) -> bool:
    try:
        float(name)
    except ValueError:
        return False
    return True
