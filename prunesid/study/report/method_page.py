"""A page about one method of an ablation: what it is, keeps and costs, and where it fails."""

from __future__ import annotations

import base64
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from prunesid.core.files import atomic
from prunesid.methods.registry import DECODER, ENCODER, FEATURES, QUESTION
from prunesid.study.analysis.comparison import ALL, AVERAGE
from prunesid.study.config.ablation import Ablation, Setting
from prunesid.study.config.arm import ALL_TOKENS, text
from prunesid.study.report import caption, formats, method_losses, panels, theme
from prunesid.study.report.arm_facts import count_text, facts_table
from prunesid.study.report.fidelity import agreement_of, code_of
from prunesid.study.report.figures import Subject
from prunesid.study.report.method_facts import About, about
from prunesid.study.report.table import (
    Block,
    Table,
    TableCell,
    TableRow,
    difference_cell,
    lines_of,
    signed,
    value_cell,
)
from prunesid.study.report.templates import render

PLACES = {
    ENCODER: "in or before the vision encoder, which runs once more for it",
    FEATURES: "before the language model",
    QUESTION: "before the language model, by what is asked",
    DECODER: "inside the language model, by what is asked",
}
READS = {
    "cls": "CLS token",
    "cls_attention": "CLS attention",
    "projected": "projected tokens",
    "relevance": "relevance to the question",
    "last_attention": "attention of the last block",
    "last_keys": "keys of the last block",
    "last_cls_attention": "CLS attention of the last block",
}


@dataclass(frozen=True)
class MethodPage:
    """`words` are of text, `numbers` of results; `losses` are drawn."""

    title: str
    about: About
    words: tuple[Table, ...]
    numbers: tuple[Table, ...]
    losses: pd.DataFrame
    rows: tuple[Setting, ...]


def build_page(method: str, subject: Subject, agreement: pd.DataFrame | None = None) -> MethodPage:
    """The page of one of `subject.ablation.methods`.

    ValueError where the subject lacks strata or facts, or the method is none of the ablation's.
    """
    ablation = subject.ablation
    if method not in ablation.methods:
        choices = ", ".join(ablation.methods) or "none"
        raise ValueError(f"{ablation.name} has no method {method!r}. Available: {choices}")
    rows = tuple(row for row in ablation.rows if row.as_dict().get("method") == method)
    cells = tuple(cell for cell in ablation.cells if cell.row in rows)
    part = replace(ablation, rows=rows, cells=cells)
    known = about(method, **cells[0].arms[0].params)
    costs = _costs(subject.needed("facts"), agreement, part)
    losses = method_losses.points(subject, rows)
    return MethodPage(
        title=rows[0].label,
        about=known,
        words=(_description(known, part), *_parameters(known, part)),
        numbers=(_accuracy(subject, part), _strata(subject, part, losses), *costs),
        losses=losses,
        rows=rows,
    )


def write_pages(subject: Subject, agreement: pd.DataFrame | None, folder: Path) -> None:
    """A page per method of the ablation in `folder`, all of `write_page`."""
    for method in subject.ablation.methods:
        write_page(build_page(method, subject, agreement), subject, folder)


def write_page(page: MethodPage, subject: Subject, folder: Path) -> None:
    """Write <method>.html and .md, and the picture of losses as .svg, .png and .csv.

    The .html holds the .svg and needs nothing beside itself; the .md shows the .png beside it.
    """
    svg, png, points = (folder / f"{page.about.name}{end}" for end in (".svg", ".png", ".csv"))
    drawn = method_losses.draw(page.losses, subject, page.rows)
    theme.write(drawn, page.losses, [svg, png, points])
    for path, content in (
        (svg.with_suffix(".html"), to_html(page, svg.read_bytes())),
        (svg.with_suffix(".md"), to_markdown(page, png.name)),
    ):
        with atomic(path) as part:
            part.write_text(content, encoding="utf-8", newline="\n")


def to_html(page: MethodPage, picture: bytes) -> str:
    """The page around the picture's SVG."""
    encoded = base64.b64encode(picture).decode("ascii")
    return render("method.html", title=page.title, page=page, picture=encoded)


def to_markdown(page: MethodPage, picture: str) -> str:
    """The page in GitHub's Markdown; `picture` is the file beside it."""
    summary = formats.without_tags(page.about.summary)
    parts = [f"## {formats.plain(page.title)}", summary, formats.to_markdown(page.words[0]).strip()]
    for heading, words in page.about.texts:
        parts.append(f"**{heading}**\n\n```text\n{words}\n```")
    parts += [formats.to_markdown(table).strip() for table in page.words[1:]]
    for place, table in enumerate(page.numbers):
        parts += [f"![losses]({picture})"] if place == 1 else []
        parts.append(formats.to_markdown(table).strip())
    return "\n\n".join(parts) + "\n"


def _description(known: About, part: Ablation) -> Table:
    origin, measured = known.origin, agreement_of(known.name)
    lines = {
        "Acts": PLACES[known.place],
        "Source": f"{origin.title}, {origin.venue}" if origin else known.source,
        "Authors' code": code_of(origin) if origin else "",
        "Equal to it": str(measured) if measured else "no vectors" if origin else "",
        "Default differs from it in": ", ".join(origin.upstream) or "nothing" if origin else "",
        "Reads beside the tokens": _needs(known, part),
        "Code": known.module,
    }
    rows = tuple(TableRow(name, (TableCell(value),)) for name, value in lines.items() if value)
    return _plain("In short", ("",), rows)


def _needs(known: About, part: Ablation) -> str:
    """The needs of the first row, and of those that read something else."""
    found: dict[str, str] = {}
    for row, arm in caption.first_arms(part).items():
        needs = about(known.name, **arm.params).needs
        read = ", ".join(READS.get(need, need) for need in needs) or "nothing"
        if read not in found.values():
            found[row.label] = read
    first, *others = found.items()
    return "; ".join([first[1], *(f"{label}: {read}" for label, read in others)])


def _parameters(known: About, part: Ablation) -> tuple[Table, ...]:
    """Every parameter with its default, its choices and what each row runs it with."""
    used = [arm.resolved() for arm in caption.first_arms(part).values()]
    rows = []
    for name, param in known.params.items():
        choices = ", ".join(text(value) for value in param.values())
        if not choices and param.minimum is not None:
            choices = f"from {param.minimum:g}"
        cells = (text(param.default), choices, *(text(values[name]) for values in used))
        rows.append(TableRow(name, tuple(map(TableCell, cells))))
    columns = ("default", "choices", *(row.label for row in part.rows))
    return (_plain("Parameters", columns, tuple(rows)),) if rows else ()


def _plain(title: str, columns: tuple[str, ...], rows: tuple[TableRow, ...]) -> Table:
    block = Block("facts", "", rows)
    return Table(title, (("", len(columns)),), columns, (block,), (), words=True)


def _costs(
    facts: pd.DataFrame, agreement: pd.DataFrame | None, part: Ablation
) -> tuple[Table, ...]:
    table = facts_table(facts, agreement, part)
    if table is None:
        return ()
    whole = facts.loc[facts["arm"] == ALL_TOKENS, "total_macs"].mean()
    words = caption.facts_text(table.columns)
    with_all = f"With all tokens a question takes {count_text(whole)} multiply-adds."
    texts = (words[0].upper() + words[1:], with_all)
    return (replace(table, title="Tokens and multiply-adds", caption=texts),)


def _accuracy(subject: Subject, part: Ablation) -> Table:
    """Every column of every row, and of the reference, with the rank by the average."""
    ablation, reference = subject.ablation, subject.ablation.reference
    names = [*subject.titles, AVERAGE]
    lines = lines_of(subject.comparison)
    whole = [value_cell(lines[ALL_TOKENS, ALL, name]) for name in subject.titles]
    first = TableRow("all tokens", (*whole, TableCell("100"), TableCell(), TableCell()))
    blocks = [Block("ours", "", (first,))]
    for row in dict.fromkeys([*part.rows, reference]):
        found = []
        for column in ablation.columns_of(row):
            key = column.key or ALL
            own = lines[row.key, key, AVERAGE]
            rivals = [lines[c.row.key, key, AVERAGE] for c in ablation.cells if c.column == column]
            better = sum(rival["value"] > own["value"] for rival in rivals)
            values = (value_cell(lines[row.key, key, name]) for name in names)
            difference = TableCell() if row == reference else difference_cell(own)
            rank = TableCell(f"{better + 1} of {len(rivals)}")
            label = column.label if column.values else row.label
            found.append(TableRow(label, (*values, difference, rank)))
        title = row.label + (", the reference" if row == reference else "")
        blocks.append(Block("facts", title, tuple(found)))
    columns = (*subject.titles.values(), "Avg.", f"from {reference.label}", "rank")
    average = (
        "Avg.: mean over benchmarks of the value as a percentage of the value with all tokens; "
        f"beside it its difference from {reference.label}, and its rank among the rows of this "
        "ablation. †: p < 0.05 after Holm's correction over the tests of the ablation. "
        f"{caption.TEST}"
    )
    texts = tuple(filter(None, [caption.definition(subject), average, caption.counts(part)]))
    return Table("Accuracy", (("", len(columns)),), columns, tuple(blocks), texts)


def _strata(subject: Subject, part: Ablation, losses: pd.DataFrame) -> Table:
    """The change in every stratum under every column, in the order of the picture."""
    keys = ["kind", "benchmark", "stratum", "row", "column"]
    lines = subject.needed("strata").set_index(keys).sort_index()
    columns = {row: subject.ablation.columns_of(row) for row in part.rows}
    series = [(row.key, column) for row in part.rows for column in columns[row]]
    rows: dict[str, list[TableRow]] = {name: [] for name in panels.STRATA.values()}
    for kind, benchmark, stratum in losses[keys[:3]].drop_duplicates().itertuples(index=False):
        found = lines.loc[kind, benchmark, stratum]
        changes = [found.loc[(key, column.key or ALL)] for key, column in series]
        sizes = (f"{changes[0]['questions']:.0f}", f"{changes[0]['whole']:.1f}")
        cells = (*map(TableCell, sizes), *map(_change, changes))
        rows[panels.STRATA[kind]].append(TableRow(f"{subject.titles[benchmark]}: {stratum}", cells))
    filled = {name.capitalize(): tuple(found) for name, found in rows.items() if found}
    blocks = tuple(Block("facts", name, found) for name, found in filled.items())
    groups = (("", 2), *((row.label, len(columns[row])) for row in part.rows))
    under = (column.label if column.values else "change" for _, column in series)
    meaning = (
        "Share of right answers with all tokens in percent, and the change from it in percentage "
        f"points with its {subject.confidence} interval over images. †: the interval leaves out 0, "
        "not corrected for the number of lines."
    )
    titles = ("questions", "all tokens", *under)
    return Table("Where it fails", groups, titles, blocks, (meaning,))


def _change(line: pd.Series) -> TableCell:
    change, low, high = (float(line[name]) for name in ("diff", "diff_low", "diff_high"))
    interval = f"{signed(low, 1)} to {signed(high, 1)}"
    return TableCell(signed(change, 1), interval, mark=low > 0 or high < 0)
