"""Values, a line per row, the best on average first: the paper's figure 2 as one can read it.

Every value stands on a common scale with its interval, so that areas say nothing.
"""

import pandas as pd
from matplotlib.figure import Figure

from prunesid.study.analysis.comparison import AVERAGE
from prunesid.study.config.ablation import Ablation, Setting
from prunesid.study.report import panels
from prunesid.study.report.figures import Subject, forest, register


def points(subject: Subject) -> pd.DataFrame:
    """Panel, row, column and the numbers of each value; the all-token arm has hue 'vanilla'."""
    column = panels.column_axis(subject.ablation).name
    return panels.panel_points(subject, row="row", column=column, hue="row")


def ranking(data: pd.DataFrame, ablation: Ablation) -> list[Setting]:
    """The rows by their average over benchmarks and columns, the highest first.

    A row that is not run under every column is placed by its lead over the reference under the
    columns that it has.
    """
    average = data[(data["panel"] == AVERAGE) & (data["column"] != "")]
    values = average.pivot(index="row", columns="column", values="value")
    ahead = (values - values.loc[ablation.reference.key]).mean(axis=1)
    return sorted(ablation.rows, key=lambda row: -ahead[row.key])


def ranked(subject: Subject) -> list[Setting]:
    """The rows of a subject by `ranking`."""
    return ranking(points(subject), subject.ablation)


def order_note(ablation: Ablation) -> str:
    """A figure's sentence on `ranking` where some rows are not run under every column."""
    if all(ablation.columns_of(row) == ablation.columns for row in ablation.rows):
        return ""
    return (
        "Rows that are not run under every column stand by their lead over "
        f"{ablation.reference.label} where they are."
    )


def draw(data: pd.DataFrame, subject: Subject) -> Figure:
    """The figure of `points`."""
    rows = ranking(data, subject.ablation)
    sentence = (
        f"Values on {subject.sample}, of all tokens dashed; from above by the average, in percent "
        f"of all tokens. {order_note(subject.ablation)}"
    )
    return forest.draw_rows(data, subject, rows, "value", sentence)


register("dots", points=points, draw=draw)
