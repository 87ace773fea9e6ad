"""One look for every figure and table: seaborn's theme, one color per method, paper-column sizes.

    with theme.style():
        figure = theme.figure(theme.COLUMN, 2.4)
        ...
    theme.save(figure, path)

A PDF, which goes into a paper, has the letters of Times, other formats have DejaVu Sans. Colors are
seaborn's color-blind-safe palette. Nothing process-wide changes, and a saved file holds no date,
version or random id, so that the same numbers give the same bytes.
"""

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
import seaborn as sns
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from prunesid.core.files import atomic
from prunesid.study.analysis.comparison import write_csv

# Inches: a column and both columns of a paper.
COLUMN, TEXT = 3.35, 6.9
# A PDF goes into a paper set in Times; the second font has the characters that the first lacks.
PAPER_FONTS = ["STIXGeneral", "DejaVu Sans"]
SMALL = 6.0
DOTS = 200
LETTERS_PER_INCH = 22
INK, MUTED, RULE, BAND = "#1f2328", "#636c76", "#c9d1d9", "#b4bec8"
PALETTE: tuple[str, ...] = tuple(sns.color_palette("colorblind").as_hex())
VANILLA = "vanilla"
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "<", ">", "*")
DASHES: tuple[str | tuple[int, tuple[float, ...]], ...] = ("-", (0, (5, 1.2)), (0, (1.6, 1)), "-.")
# A method, grouping or preset has its color in every figure; other names take what is left.
COLORS = {
    "prunesid": PALETTE[0],
    "psca": PALETTE[0],
    "paper": PALETTE[0],
    "kmeans": PALETTE[1],
    "matched": PALETTE[2],
    "release": PALETTE[3],
    "release_qwen": PALETTE[3],
    "cls_topk": PALETTE[4],
    "grid": PALETTE[5],
    "visionzip": PALETTE[6],
    "random": PALETTE[7],
    "vispruner": PALETTE[8],
    "holov": PALETTE[9],
    # Paul Tol's muted colors, for what seaborn's ten do not reach.
    "divprune": "#332288",
    "scope": "#117733",
    "dpp": "#882255",
    "cdpruner": "#cc3377",
    "hired": "#999933",
    "prumerge": "#44aa99",
    "pool": "#88ccee",
    "fastv": "#cc6677",
    "sparsevlm": "#ddcc77",
    "dart": "#aa4499",
    "mustdrop": "#661100",
    # Of Tableau's twenty, two that are far from all above.
    "tome": "#8c564b",
    "downsample": "#98df8a",
    VANILLA: INK,
}
# Benchmarks are no methods: IBM's color-blind-safe colors, and a teal.
BENCHMARKS = ("#648fff", "#fe6100", "#785ef0", "#dc267f", "#ffb000", "#0b7a75")

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
        "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans"],
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
        "savefig.dpi": DOTS,
        "svg.fonttype": "path",
        # A dollar in a label from outside is no formula, and a broken formula is no figure.
        "text.parse_math": False,
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


def wrap(text: str, letters: int) -> str:
    """The text in lines of at most that many letters."""
    return "\n".join(textwrap.wrap(text, letters))


def marker(place: int) -> str:
    """The mark of the series at that place."""
    return MARKERS[place % len(MARKERS)]


def colors(names: Sequence[str]) -> dict[str, str]:
    """A color per name: a method's, grouping's or preset's own, a sequence for numbers, else free.

    A name may be a setting such as 'method=grid,budget=64'. Of several with the same own color the
    first gets it.
    """
    if len(names) > 1 and all(_is_number(name) for name in names):
        ordered = sorted(names, key=float)
        return dict(zip(ordered, sns.color_palette("viridis", len(ordered)).as_hex(), strict=True))
    found: dict[str, str] = {}
    for name in names:
        values = (part.rpartition("=")[2] for part in name.split(","))
        own = next((COLORS[value] for value in values if value in COLORS), None)
        if own is not None and own not in found.values():
            found[name] = own
    free = [color for color in PALETTE if color not in found.values()] or list(PALETTE)
    others = [name for name in names if name not in found]
    found |= {name: free[place % len(free)] for place, name in enumerate(others)}
    return {name: found[name] for name in names}


def benchmark_colors(names: Sequence[str]) -> dict[str, str]:
    """A color per benchmark, in the order of the study."""
    return {name: BENCHMARKS[place % len(BENCHMARKS)] for place, name in enumerate(names)}


def write(drawn: Figure, points: pd.DataFrame, paths: Sequence[Path], dots: int = DOTS) -> None:
    """Write a figure to every path by its suffix: its numbers to .csv, else as `save` does.

    `dots` per inch, of the .png and of images inside the others.
    """
    for path in paths:
        if path.suffix == ".csv":
            write_csv(points, path)
        else:
            save(drawn, path, dots)


def save(drawn: Figure, path: Path, dots: int = DOTS) -> None:
    """Write a figure as its suffix says (.pdf, .svg, .png): atomic, the same bytes each time."""
    suffix = path.suffix.lower()
    if suffix not in _METADATA:
        raise ValueError(f"{path}: figures are saved as {', '.join(_METADATA)}")
    fonts: dict[Any, Any] = {"font.sans-serif": PAPER_FONTS} if suffix == ".pdf" else {}
    with style(), matplotlib.rc_context(fonts), atomic(path) as part:
        drawn.savefig(part, format=suffix[1:], dpi=dots, metadata=_METADATA[suffix])


def _is_number(name: str) -> bool:
    try:
        float(name)
    except ValueError:
        return False
    return True
