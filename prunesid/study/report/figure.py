"""The figures of an ablation, of the kinds that its YAML names, written in every format."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from prunesid.study.analysis.comparison import write_csv
from prunesid.study.config.ablation import FIGURE
from prunesid.study.report import theme
from prunesid.study.report.figures import FIGURES, Subject


def write_figure(subject: Subject, paths: Sequence[Path], picture: str = FIGURE) -> None:
    """Write the figure to every path by its suffix: .pdf, .svg, .png, and .csv for its points.

    `picture` is one of `subject.ablation.figure.kinds`.
    """
    kind = FIGURES[subject.ablation.figure.kinds[picture]]
    points = kind.points(subject)
    write_drawn(kind.draw(points, subject), points, paths)


def write_drawn(
    drawn: Figure, points: pd.DataFrame, paths: Sequence[Path], dots: int = theme.DOTS
) -> None:
    """Write a figure and its numbers; atomic, the same bytes for the same numbers.

    `dots` per inch, of the .png and of images inside the others.
    """
    for path in paths:
        if path.suffix == ".csv":
            write_csv(points, path)
        else:
            theme.save(drawn, path, dots)
