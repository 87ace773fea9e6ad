"""The page that asks whether findings travel from model to model.

It shows each method's place on every model, rank correlations between models and with the paper's
tables, and in sentences which differences all models share and which they do not.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from prunesid.core.files import atomic
from prunesid.study.analysis import travel
from prunesid.study.analysis.comparison import AVERAGE, write_csv
from prunesid.study.analysis.travel import ChapterResults, Standing
from prunesid.study.config.ablation import Ablation
from prunesid.study.config.chapters import METHODS
from prunesid.study.config.study import Bootstrap, Study
from prunesid.study.report import formats, panels, theme
from prunesid.study.report.paper import Paper
from prunesid.study.report.table import LEVEL, Block, Table, TableCell, TableRow, signed
from prunesid.study.report.templates import render

TITLE = "Do the findings travel?"
SUFFIXES = (".html", ".md", ".csv", ".svg", ".png")
# Inches of a mark, of a line of a label and of what is around the panel.
MARK, LINE, AROUND = 0.1, 0.14, 1.0
PLACES = (
    "Place among the methods of the column: 1, and 1 for each that keeps more; = where several "
    "share it. Small print: the places that significant differences leave open, where there are "
    "others. Rows by the mean place as a share of the column's methods. Blank: not run, or not "
    "printed. A row of the paper that may stand for several of ours counts once, for the first."
)


@dataclass(frozen=True)
class TravelPage:
    """`lists` are of sentences, by heading; `numbers` are all those of the page, tidy.

    correlations  those of `numbers` that are drawn
    """

    introduction: tuple[str, ...]
    tables: tuple[Table, Table]
    lists: tuple[tuple[str, tuple[str, ...]], ...]
    correlations: pd.DataFrame
    numbers: pd.DataFrame


def write_travel(
    chapters: Sequence[tuple[Study, Ablation]], paper: Paper, outputs: Sequence[Path]
) -> None:
    """Write the page of finished studies, each with the ablation that `Whole.compared` names.

    outputs  a path per suffix of `SUFFIXES`, and .pdf where wanted. The .html holds the .svg and
             needs nothing beside itself; the .md shows the .png beside it.

    All resamples are made as the first study says. ValueError where a suffix is missing, or two
    studies have the same title.
    """
    bootstrap = chapters[0][0].bootstrap
    results = [travel.read_chapter(study, ablation, bootstrap) for study, ablation in chapters]
    write_page(build_page(results, paper, bootstrap), bootstrap, outputs)


def write_page(page: TravelPage, bootstrap: Bootstrap, outputs: Sequence[Path]) -> None:
    """Write the page as `write_travel` does; atomic, the same bytes for the same numbers."""
    paths = {path.suffix: path for path in outputs}
    if missing := [suffix for suffix in SUFFIXES if suffix not in paths]:
        raise ValueError(f"the page needs a path that ends in {', '.join(missing)}")
    write_csv(page.numbers, paths.pop(".csv"))
    html, markdown = paths.pop(".html"), paths.pop(".md")
    theme.write(draw(page.correlations, bootstrap), page.correlations, list(paths.values()))
    picture = base64.b64encode(paths[".svg"].read_bytes()).decode("ascii")
    for path, content in (
        (html, render("travel.html", title=TITLE, page=page, picture=picture)),
        (markdown, to_markdown(page, paths[".png"].name)),
    ):
        with atomic(path) as part:
            part.write_text(content, encoding="utf-8", newline="\n")


def to_markdown(page: TravelPage, picture: str) -> str:
    """The page in GitHub's Markdown; `picture` is the file beside it."""
    correlated, places = (formats.to_markdown(table).strip() for table in page.tables)
    *lists, last = (
        f"### {heading}\n\n" + "\n".join(f"- {formats.plain(text)}" for text in sentences)
        for heading, sentences in page.lists
    )
    shown = [f"![rank correlations]({picture})", correlated, places]
    parts = [f"## {TITLE}", *map(formats.plain, page.introduction), *lists, *shown, last]
    return "\n\n".join(parts) + "\n"


def build_page(
    chapters: Sequence[ChapterResults], paper: Paper, bootstrap: Bootstrap
) -> TravelPage:
    """The page of these results. ValueError where two have the same title."""
    titles = [chapter.title for chapter in chapters]
    if twice := sorted({title for title in titles if titles.count(title) > 1}):
        raise ValueError(f"models that are compared need titles of their own: {', '.join(twice)}")
    names = travel.labels(chapters)
    measured = {chapter.title: travel.standings(chapter, names) for chapter in chapters}
    papers = {chapter.title: printed(chapter.ablation, paper, names) for chapter in chapters}
    places = travel.places((title, own[title]) for title in titles for own in (measured, papers))
    sides = [
        (title, measured[title], other)
        for number, title in enumerate(titles)
        for other in (*(measured[later] for later in titles[number + 1 :]), papers[title])
    ]
    correlations = travel.correlations(sides, bootstrap.confidence)
    differences = travel.differences(list(measured.values()))
    notes = dict.fromkeys(note for chapter in chapters for note in paper.notes_on(chapter.ablation))
    introduction = (
        "On each model, methods are ordered by what they keep: the mean over its benchmarks of the "
        "value as a percentage of the value with all tokens. Budgets are matched by their order: "
        "budget 1 is the smallest of each model, whatever share of its tokens that is. A "
        f"difference is significant where p < {LEVEL:g} after Holm's correction over all pairs of "
        "the model's methods at that budget (sign-flip test over images); one that is not may "
        "still be there.",
        *(
            f"{title}: a benchmark has fewer than {travel.IMAGES} images, too few to compare."
            for title in titles
            if not measured[title]
        ),
    )
    return TravelPage(
        introduction=introduction,
        tables=(_correlations(correlations, bootstrap, tuple(notes)), _places(places)),
        lists=_lists(differences),
        correlations=correlations,
        numbers=_numbers(place=places, correlation=correlations, difference=differences),
    )


def printed(ablation: Ablation, paper: Paper, names: Mapping[str, str]) -> list[Standing]:
    """What the ablation's table of the paper prints of its methods, the smallest budget first.

    Budgets are matched by their order. A printed row that may be of several methods counts once,
    for the first of them. Nothing where the ablation has no such table.
    """
    number = str(ablation.table.paper_table)
    if number not in paper.models:
        return []
    found = []
    for cells, budget in zip(travel.by_budget(ablation), paper.budgets(ablation), strict=False):
        rows: dict[tuple[str, str | None], tuple[str, float]] = {}
        for cell in cells:
            arm = replace(cell.arms[0], budget=budget)
            value = paper.printed(ablation, replace(cell, arms=(arm,)), AVERAGE)
            if value is not None:
                rows.setdefault((arm.method, arm.dynamic), (names[travel.method_of(cell)], value))
        values = dict(rows.values())
        drawn = {name: np.array([value]) for name, value in values.items()}
        tokens = int(paper.token_count(ablation))
        found.append(Standing(f"paper, table {number}", budget, tokens, values, drawn, None))
    return found


def _numbers(**parts: pd.DataFrame) -> pd.DataFrame:
    """The tables as one, whose first column `part` says of which a line is."""
    lines = [
        {"part": part} | line for part, own in parts.items() for line in own.to_dict("records")
    ]
    names = dict.fromkeys(name for own in parts.values() for name in own)
    return pd.DataFrame(lines, columns=["part", *names])


def _places(places: pd.DataFrame) -> Table:
    """A block per budget: how many methods, what is kept of how many tokens, and the places."""
    columns = list(dict.fromkeys(zip(places["model"], places["source"], strict=True)))
    blocks = []
    for budget, own in places.groupby("budget"):
        found = {(o["method"], o["model"], o["source"]): o for o in own.to_dict("records")}
        heads = {key[1:]: line for key, line in found.items()}
        methods = [TableCell(str(heads[key]["methods"] if key in heads else "")) for key in columns]
        kept = [_kept(heads[key]) if key in heads else TableCell() for key in columns]
        rows = [TableRow("tokens kept", tuple(kept)), TableRow("methods", tuple(methods))]
        share = (own["place"] / own["methods"]).groupby(own["method"], sort=False).mean()
        for method in share.sort_values(kind="stable").index:
            lines = (found.get((method, *key)) for key in columns)
            rows.append(TableRow(method, tuple(_place(line) for line in lines)))
        blocks.append(Block("facts", _head(budget), tuple(rows)))
    groups = Counter(model for model, _ in columns)
    shown = tuple("here" if model == source else source for model, source in columns)
    return Table(
        "The place of every method", tuple(groups.items()), shown, tuple(blocks), (PLACES,)
    )


def _kept(line: Mapping[Any, Any]) -> TableCell:
    share = f"{100 * line['kept'] / line['tokens']:.1f} %"
    return TableCell(f"{line['kept']:,} of {line['tokens']:,}", share)


def _place(line: Mapping[Any, Any] | None) -> TableCell:
    if line is None:
        return TableCell()
    place = f"{line['place']}{'=' * bool(line['shared'])}"
    open_ = f"{line['low']:.0f}–{line['high']:.0f}" if line["low"] < line["high"] else ""
    return TableCell(place, open_, best=line["place"] == 1)


def _correlations(data: pd.DataFrame, bootstrap: Bootstrap, notes: Sequence[str]) -> Table:
    """A block per model with a row per other source, a column per budget."""
    budgets = sorted(data["budget"].unique())
    blocks = []
    for model, own in data.groupby("model", sort=False):
        rows = []
        for source, lines in own.groupby("source", sort=False):
            found = {line["budget"]: line for line in lines.to_dict("records")}
            cells = (_tau(found[b]) if b in found else TableCell() for b in budgets)
            rows.append(TableRow(str(source), tuple(cells)))
        blocks.append(Block("facts", f"{model} and", tuple(rows)))
    words = (
        "Kendall's τ-b of what those methods keep that both have (their number is the last in a "
        "cell): 1 for the same order, −1 for the opposite, 0 for unrelated ones. With fewer than "
        f"{METHODS} methods nothing is computed. Small print: {_confidence(bootstrap)} "
        f"interval from {bootstrap.resamples:,} bootstrap resamples of whole images within each "
        "benchmark, the paper's numbers fixed: percentiles, widened to their mirror image about τ, "
        "since resampling itself makes orders less alike."
    )
    heads = tuple(map(_head, budgets))
    said = f"On the paper's numbers: {' '.join(notes)}" if notes else ""
    texts = tuple(filter(None, (words, said)))
    return Table("Rank correlations", (("", len(heads)),), heads, tuple(blocks), texts)


def _tau(line: Mapping[Any, Any]) -> TableCell:
    methods = f"of {line['methods']}"
    if np.isnan(line["value"]):
        few = line["methods"] < METHODS
        return TableCell("too few" if few else "all equal", "", methods)
    interval = f"{signed(line['low'], 2)} to {signed(line['high'], 2)}"
    return TableCell(signed(line["value"], 2), interval, methods)


@theme.style()
def draw(data: pd.DataFrame, bootstrap: Bootstrap) -> Figure:
    """The figure of `travel.correlations`: a line per model and other source, a mark per budget."""
    data = data.dropna(subset="value")
    pairs = data[["model", "source"]].drop_duplicates()
    budgets = sorted(data["budget"].unique())
    series = panels.Axis("budget", tuple(map(str, budgets)), tuple(map(_head, budgets))).series
    height = max(2 * LINE, MARK * (len(series) + 1)) * len(pairs) + AROUND
    drawn = theme.figure(theme.COLUMN, height)
    ax = drawn.subplots()
    panels.draw_zero(ax)
    for number, (budget, one) in enumerate(zip(budgets, series, strict=True)):
        own = pairs.merge(data[data["budget"] == budget], "left")
        reach = np.stack([own["value"] - own["low"], own["high"] - own["value"]])
        look: dict[str, Any] = {"color": one.color, "marker": one.marker, "label": one.label}
        look |= {"linestyle": "none", "elinewidth": 0.8, "capsize": 1.6}
        at = panels.lines_beside(len(pairs), number, len(series))
        ax.errorbar(own["value"], at, xerr=reach, **look)
    ax.set_xlim(-1.05, 1.05)
    ax.set_xlabel("Kendall's τ-b")
    ax.set_yticks(range(len(pairs)), ["\n".join(pair) for pair in pairs.itertuples(index=False)])
    panels.lines_down(ax, len(pairs))
    panels.legend(drawn, [], panels.named(ax))
    panels.note(drawn, f"Bars: {_confidence(bootstrap)} intervals over images.")
    return drawn


def _lists(differences: pd.DataFrame) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Headings and sentences: what all models share, what turns round, what only some show."""
    counted = [
        f"Budget {budget}: of {len(own)} pairs of methods that several models have, "
        f"{(own['verdict'] == travel.EVERYWHERE).sum()} differ significantly on all that have both,"
        f" {(own['verdict'] == travel.SOMEWHERE).sum()} on some alone, "
        f"{(own['verdict'] == travel.TURNED).sum()} turn round, "
        f"{(own['verdict'] == '').sum()} on none."
        for budget, own in differences.groupby("budget")
    ]
    shared = [
        f"{method} keeps more than {than}."
        for (method,), than in _grouped(differences, travel.EVERYWHERE, "method")
    ]
    turned = [
        f"{method} keeps more on {_models(sure)}, and less on {_models(other)}, than {than}."
        for (method, sure, other), than in _grouped(
            differences, travel.TURNED, "method", "sure", "turned"
        )
    ]
    some = [
        f"On {_models(sure)} alone {method} keeps more than {than}."
        for (sure, method), than in _grouped(differences, travel.SOMEWHERE, "sure", "method")
    ]
    return (
        ("What holds on every model", (*counted, *shared) or ("Nothing can be compared.",)),
        ("What turns round", tuple(turned) or ("Nothing does.",)),
        ("What holds on some models alone", tuple(some) or ("Nothing does.",)),
    )


def _grouped(
    differences: pd.DataFrame, verdict: str, *by: str
) -> Iterator[tuple[tuple[str, ...], str]]:
    """The lines of a verdict in groups, with the worse methods of each and the budgets as words."""
    every = tuple(sorted(differences["budget"].unique()))
    chosen = differences[differences["verdict"] == verdict]
    for key, own in chosen.groupby(list(by), sort=False):
        worse: dict[tuple[int, ...], list[str]] = {}
        for name, budgets in own.groupby("worse", sort=False)["budget"]:
            worse.setdefault(tuple(budgets), []).append(str(name))
        parts = []
        for budgets, names in sorted(worse.items(), key=lambda item: (-len(item[0]), item[0])):
            at = f"budget{'s' * (len(budgets) > 1)} {_and(list(map(str, budgets)))}"
            parts.append(f"{_and(names)} at {'every budget' if budgets == every else at}")
        yield key, "; than ".join(parts)


def _models(joined: str) -> str:
    return _and(joined.split("; "))


def _and(names: Sequence[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def _head(budget: object) -> str:
    return f"Budget {budget}"


def _confidence(bootstrap: Bootstrap) -> str:
    return f"{100 * bootstrap.confidence:g} %"
