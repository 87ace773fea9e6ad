"""The first page of a study: what was run, what came of it, and where everything is.

It is written twice: as index.html, with links to the files beside it, and for the start of
Snakemake's report, where links open what the report holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import version
from os.path import relpath
from pathlib import Path

import pandas as pd

from prunesid.core.files import atomic
from prunesid.study.analysis.comparison import ALL, AVERAGE, read_comparison
from prunesid.study.analysis.latency import read_latency
from prunesid.study.analysis.pairs import read_pairs
from prunesid.study.config.ablation import FIGURE, Ablation
from prunesid.study.config.arm import ALL_TOKENS
from prunesid.study.config.chapters import compared
from prunesid.study.config.study import Study, shown_by
from prunesid.study.layout import Layout
from prunesid.study.report import findings
from prunesid.study.report.closing import FRONT, published
from prunesid.study.report.paper import Paper
from prunesid.study.report.places import PICTURES, PLACES, UNPRINTED
from prunesid.study.report.table import (
    NOT_RUN,
    Block,
    Lines,
    Table,
    TableCell,
    TableRow,
    lines_of,
    value_cell,
)
from prunesid.study.report.templates import render


@dataclass(frozen=True)
class Link:
    """Where to look."""

    text: str
    file: Path


@dataclass(frozen=True)
class Part:
    """One model's results for a section of the page; `text` says what to see in them."""

    title: str
    links: tuple[Link, ...]
    text: str = ""


@dataclass(frozen=True)
class Section:
    """A table or figure of the paper, or a title of ours; `text` says why there are no parts."""

    title: str
    shows: str
    parts: tuple[Part, ...]
    text: str = ""


@dataclass(frozen=True)
class Chapter:
    """The finished study of one model, as far as the page shows it."""

    study: Study

    @property
    def title(self) -> str:
        """The model's name: what the study's title says after 'PruneSID on', else its folder's."""
        _, on, model = self.study.title.partition("PruneSID on ")
        return model.partition(",")[0] if on else self.study.model_name

    @cached_property
    def layout(self) -> Layout:
        return Layout.of(self.study)

    @property
    def main(self) -> Ablation:
        """The ablation that compares methods; the first where none does."""
        return compared(self.study) or self.study.ablations[0]

    @cached_property
    def comparisons(self) -> dict[str, pd.DataFrame]:
        names = [ablation.name for ablation in self.study.ablations]
        return {name: read_comparison(self.layout.comparison(name)) for name in names}

    def pairs(self, ablation: Ablation) -> pd.DataFrame:
        return read_pairs(self.layout.ablation("pairs.csv", ablation.name))

    def seen(self, ablation: Ablation) -> str:
        said = findings.seen(ablation, self.comparisons[ablation.name], self.pairs(ablation))
        times = self.layout.ablation("latency.csv", ablation.name)
        if ablation.latency is None or not times.is_file():
            return said
        return f"{findings.fastest(ablation, read_latency(times))} {said}".strip()

    @property
    def ran(self) -> str:
        """'576 visual tokens; GQA, POPE: 558 questions on 96 images; 215 arms in 13 ablations'."""
        whole = pd.concat(self.comparisons.values())
        whole = whole[(whole["row"] == ALL_TOKENS) & (whole["benchmark"] != AVERAGE)]
        whole = whole.drop_duplicates("benchmark")
        questions, images = (int(whole[name].sum()) for name in ("questions", "images"))
        titles = ", ".join(b.title for b in self.study.benchmarks)
        count = len(self.study.ablations)
        many = "1 ablation" if count == 1 else f"{count} ablations"
        shown = shown_by(self.study.benchmarks)
        return (
            f"{whole['tokens_max'].max():,.0f} visual tokens; {titles}: {questions:,} questions on "
            f"{images:,} {shown}; {len(self.study.arms)} settings in {many}"
        )


@dataclass(frozen=True)
class Front:
    """`first` is what to open first, `tables` the chapters' main tables with links to more.

    `kept` is a picture of kept patches, of the first chapter that has one.
    """

    title: str
    first: tuple[Link, ...]
    ran: tuple[tuple[str, str], ...]
    when: str
    findings: tuple[str, ...]
    kept: Link | None
    tables: tuple[tuple[str, Table, tuple[Link, ...]], ...]
    paper: tuple[Section, ...]
    beside: tuple[Section, ...]
    published: tuple[str, ...]


def write_front(
    title: str, studies: Sequence[Study], paper: Paper, travel: Path | None, outputs: Sequence[Path]
) -> None:
    """Write the page of a study's finished chapters as [index.html, for Snakemake's report].

    travel  travel.csv of several chapters, or None
    """
    page = build_front(title, [Chapter(study) for study in studies], paper, travel)
    folder = studies[0].results
    for output, template in zip(outputs, ("front.html", "front_part.html"), strict=True):
        text = render(template, title=page.title, page=page, folder=folder, beside=relpath)
        with atomic(output) as part:
            part.write_text(text, encoding="utf-8", newline="\n")


def build_front(
    title: str, chapters: Sequence[Chapter], paper: Paper, travel: Path | None = None
) -> Front:
    """The page; files that are not there are not linked."""
    first = [(f"explorer: {c.title}", c.layout.explorer / FRONT) for c in chapters]
    if travel is not None:
        first.append(("do the findings travel?", travel.with_suffix(".html")))
    kept = _there(*((f"Kept patches: {c.title}", c.layout.figure("patches.png")) for c in chapters))
    return Front(
        title=title,
        first=_there(*first),
        ran=tuple((chapter.title, chapter.ran) for chapter in chapters),
        when=_when(chapters),
        findings=tuple(_findings(chapters, travel)),
        kept=kept[0] if kept else None,
        tables=tuple((c.title, main_table(c, paper), _links(c, c.main)) for c in chapters),
        paper=tuple(_place(place, chapters) for place in PLACES),
        beside=tuple(_beside(chapters, travel)),
        published=tuple(published([chapter.layout for chapter in chapters])),
    )


def main_table(chapter: Chapter, paper: Paper) -> Table:
    """What each row of the main ablation keeps under each column, beside what the paper prints.

    Rows are sorted by what they keep under the first column.
    """
    ablation = chapter.main
    lines = lines_of(chapter.comparisons[ablation.name])
    cells = {(cell.row, cell.column): cell for cell in ablation.cells}
    found = {
        row: [lines.get((row.key, column.key or ALL, AVERAGE)) for column in ablation.columns]
        for row in ablation.rows
    }
    best = [max(x["value"] for x in under if x) for under in zip(*found.values(), strict=True)]
    ranked = sorted(
        found, key=lambda row: tuple(-x["value"] if x else float("inf") for x in found[row])
    )
    printed = {
        row: [
            paper.printed(ablation, cells[row, column], AVERAGE) if (row, column) in cells else None
            for column in ablation.columns
        ]
        for row in ablation.rows
    }
    beside = any(value is not None for own in printed.values() for value in own)
    pairs, reference = chapter.pairs(ablation), ablation.reference
    sure = [findings.better(pairs, column) for column in ablation.columns]
    rows = []
    for row in ranked:
        ours = (
            replace(
                value_cell(line, line["value"] == top),
                mark=bool({(row.key, reference.key), (reference.key, row.key)} & known),
            )
            if line
            else NOT_RUN
            for line, top, known in zip(found[row], best, sure, strict=True)
        )
        theirs = (TableCell("" if v is None else f"{v:.1f}") for v in printed[row] if beside)
        rows.append(TableRow(row.label, (*ours, *theirs)))
    columns = tuple(c.label if c.values else "average" for c in ablation.columns)
    groups = [("here", len(columns))]
    if beside:
        groups.append((f"the paper on {paper.model_of(ablation)}", len(columns)))
    return Table(
        title=ablation.title,
        groups=tuple(groups),
        columns=columns * len(groups),
        blocks=(Block("facts", "", tuple(rows)),),
        caption=(_meaning(chapter, lines, beside),),
    )


def _meaning(chapter: Chapter, lines: Lines, beside: bool) -> str:
    whole = "; ".join(
        f"{b.title} {value_cell(lines[ALL_TOKENS, ALL, b.name]).value}"
        for b in chapter.study.benchmarks_of(chapter.main)
    )
    said = (
        "Mean over benchmarks of the value as a percentage of that with all tokens "
        f"({whole}); small print: {100 * chapter.study.bootstrap.confidence:g} % intervals over "
        f"images. Bold: the highest. †: differs from {chapter.main.reference.label}, p < 0.05 "
        "after Holm's correction over all pairs of the column, as in the findings. –: not run."
    )
    other = " The paper's averages are of other benchmarks, on photographs: compare the order."
    return said + other * beside


def _findings(chapters: Sequence[Chapter], travel: Path | None) -> Iterator[str]:
    """Three or four sentences on the main results, as far as the study has such results."""
    first = chapters[0]
    yield from findings.leaders(
        first.main, first.comparisons[first.main.name], first.pairs(first.main)
    )
    every = [(c.title, a, c.comparisons[a.name]) for c in chapters for a in c.study.ablations]
    found = [findings.shared_out(each for each in every if each[1].in_paper == "table 7")]
    if travel is not None:
        found.append(findings.traveled(pd.read_csv(travel)))
    else:
        found.append(findings.largest(each for each in every if each[1].in_paper != "table 7"))
    yield from filter(None, found)


def _place(place: str, chapters: Sequence[Chapter]) -> Section:
    shows, file = PLACES[place]
    parts = tuple(part for chapter in chapters for part in _parts(place, chapter))
    text = UNPRINTED.get(place, "")
    if not parts:
        text = f"Not part of this study; {file} has it."
    return Section(place.capitalize(), shows, parts, text)


def _parts(place: str, chapter: Chapter) -> Iterator[Part]:
    pictures = {
        "figure 1": ("patches.png", "kept patches"),
        "figure 5": ("information.svg", "histograms"),
    }
    if place in pictures:
        name, text = pictures[place]
        yield Part(chapter.title, _there((text, chapter.layout.figure(name))))
    for ablation in chapter.study.ablations:
        if ablation.in_paper == place:
            title = f"{chapter.title}: {ablation.title}"
            yield Part(title, _links(chapter, ablation), chapter.seen(ablation))
        elif place == "figure 2" and ablation.in_paper == "table 1" and ablation == chapter.main:
            kinds = {FIGURE, "radar"} & set(ablation.figure.kinds)
            links = [
                (PICTURES[kind], chapter.layout.ablation(f"{kind}.svg", ablation.name))
                for kind in PICTURES
                if kind in kinds
            ]
            yield Part(f"{chapter.title}: {ablation.title}", _there(*links))


def _beside(chapters: Sequence[Chapter], travel: Path | None) -> Iterator[Section]:
    """The sections on what the paper does not have."""
    if travel is not None:
        page = _there(("places and rank correlations", travel.with_suffix(".html")))
        yield Section("Do the findings travel?", "", (Part("from model to model", page),))
    explorers = [
        Part(c.title, links)
        for c in chapters
        if (links := _there(("explorer", c.layout.explorer / FRONT)))
    ]
    if explorers:
        yield Section("Explorer", "images, questions and answers, side by side", tuple(explorers))
    parts = [
        Part(
            f"{chapter.title}: {ablation.title}", _links(chapter, ablation), chapter.seen(ablation)
        )
        for chapter in chapters
        for ablation in chapter.study.ablations
        if ablation.in_paper not in PLACES
    ]
    if parts:
        yield Section("Further ablations", "", tuple(parts))
    pages = [Part(chapter.title, links) for chapter in chapters if (links := _pages(chapter))]
    if pages:
        yield Section(
            "A page per method", "what it is, where it fails, what it costs", tuple(pages)
        )
    notebooks = [
        Part(c.title, links)
        for c in chapters
        if (links := _there(("first questions", c.layout.notebook("first_questions.html"))))
    ]
    if notebooks:
        yield Section("Notebook", "first questions, with their code", tuple(notebooks))


def _pages(chapter: Chapter) -> tuple[Link, ...]:
    """The pages of the methods of the main ablation, by their labels."""
    ablation = chapter.main
    labels: dict[str, str] = {}
    for row in ablation.rows:
        labels.setdefault(str(row.as_dict().get("method")), row.label)
    return _there(
        *(
            (labels[name], chapter.layout.ablation("methods", ablation.name) / f"{name}.html")
            for name in ablation.methods
        )
    )


def _links(chapter: Chapter, ablation: Ablation) -> tuple[Link, ...]:
    """The table and the pictures of an ablation."""
    names = [("table", "table.html")]
    names += [(PICTURES.get(kind, kind), f"{kind}.svg") for kind in ablation.figure.kinds]
    if ablation.latency is not None:
        names += [("time", "latency.html")]
        names += [(PICTURES[kind], f"{kind}.svg") for kind in ("speed", "stations")]
    return _there(*((t, chapter.layout.ablation(name, ablation.name)) for t, name in names))


def _there(*links: tuple[str, Path]) -> tuple[Link, ...]:
    return tuple(Link(text, path) for text, path in links if path.is_file())


def _when(chapters: Sequence[Chapter]) -> str:
    """When the first and the last of the scores were written, and by which version."""
    written = [
        chapter.layout.scores(benchmark.name).stat().st_mtime
        for chapter in chapters
        for benchmark in chapter.study.benchmarks
    ]
    first, last = (
        datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M")
        for time in (min(written), max(written))
    )
    until = f" to {last}" if last != first else ""
    return f"Answers scored {first}{until} (UTC), prunesid {version('prunesid')}."
