"""The change of rows from all tokens by question family and by information score.

One table of colors per kind of stratum, for the ablation's first column: a row's loss in every
family of every benchmark above, in every third of the images by phi below.
"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from prunesid.study.analysis.comparison import ALL
from prunesid.study.report import panels, theme
from prunesid.study.report.figures import Subject, dots, register

# Inches: of a cell, of a letter of a label, of the color bar, above each table, and of the note.
CELL, LETTER, BAR, HEAD, FOOT = 0.25, 0.08, 0.9, 0.55, 0.55


def points(subject: Subject) -> pd.DataFrame:
    """Row, kind, benchmark, stratum and the change in percentage points, of the first column.

    Rows are sorted by their average, the highest first. ValueError without the strata.
    """
    strata = subject.needed("strata")
    own = strata[strata["column"] == (subject.ablation.columns[0].key or ALL)]
    place = {row.key: number for number, row in enumerate(dots.ranked(subject))}
    own = own.sort_values("row", key=lambda names: names.map(place), kind="stable")
    shown = ["row", "kind", "benchmark", "stratum", "questions", "whole", "value", "diff"]
    return own[[*shown, "diff_low", "diff_high"]]


@theme.style()
def draw(data: pd.DataFrame, subject: Subject) -> Figure:
    """The figure of `points`."""
    ablation = subject.ablation
    labels = {row.key: row.label for row in ablation.rows}
    names = [labels[key] for key in data["row"].unique()]
    data = data.assign(sure=(data["diff_low"] > 0) | (data["diff_high"] < 0))
    tables = {
        kind: _table(data, kind, "diff") for kind in panels.STRATA if kind in set(data["kind"])
    }
    widest = max(len(table.columns) for table in tables.values())
    longest = max(len(stratum) for table in tables.values() for _, stratum in table.columns)
    height = (CELL * len(names) + HEAD + 0.6 * LETTER * longest) * len(tables) + FOOT
    asked = data["questions"]
    reach = max(float(data["diff"].abs().max()), 1e-9)
    drawn = theme.figure(CELL * widest * 1.25 + LETTER * max(map(len, names)) + BAR, height)
    axes = list(drawn.subplots(len(tables), 1, squeeze=False).ravel())
    for (kind, table), ax in zip(tables.items(), axes, strict=True):
        image = panels.draw_heat(ax, table, _table(data, kind, "sure"), reach, "auto")
        _name_columns(ax, table, subject.titles)
        ax.set_yticks(range(len(names)), names)
        ax.set_title(panels.STRATA[kind], pad=18)
    drawn.colorbar(image, ax=axes, shrink=0.6, label="change from all tokens (points)")
    column = ablation.columns[0].label if ablation.columns[0].values else "this study"
    panels.note(
        drawn,
        "Share of right answers minus that with all tokens, in percentage points, at "
        f"{column}, on {subject.sample}, {asked.min():,} to {asked.max():,} questions in a cell; "
        "from above by the average over benchmarks and columns.",
        f"*: the {subject.confidence} interval over images leaves out 0 (not corrected for the "
        "number of cells).",
    )
    return drawn


def _table(data: pd.DataFrame, kind: str, values: str) -> pd.DataFrame:
    """Rows against (benchmark, stratum), both in the order of the data."""
    own = data[data["kind"] == kind]
    wide = own.pivot(index="row", columns=["benchmark", "stratum"], values=values)
    return wide.reindex(index=data["row"].unique())[panels.strata(own)]


def _name_columns(ax: Axes, table: pd.DataFrame, titles: dict[str, str]) -> None:
    """The strata below, the benchmarks above, with a gap between two of them."""
    benchmarks, strata = zip(*table.columns, strict=True)
    ax.set_xticks(range(len(strata)), strata, rotation=45, ha="right", rotation_mode="anchor")
    for name in dict.fromkeys(benchmarks):
        places = [place for place, other in enumerate(benchmarks) if other == name]
        ax.text(float(np.mean(places)), -0.75, titles[name], ha="center", va="bottom", fontsize=7)
        if places[0]:
            ax.axvline(places[0] - 0.5, color="white", linewidth=2.5)


register("losses", points=points, draw=draw)
