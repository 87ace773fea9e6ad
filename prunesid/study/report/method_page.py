"""A page about one method of an ablation: what it is, keeps and costs, and where it fails."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from prunesid.core.files import atomic
from prunesid.methods.registry import DECODER, ENCODER, FEATURES, QUESTION
from prunesid.study.analysis.comparison import ALL, AVERAGE
from prunesid.study.analysis.strata import FAMILY, PHI
from prunesid.study.config.ablation import Ablation, Setting
from prunesid.study.config.arm import ALL_TOKENS, text
from prunesid.study.report import caption, formats, method_losses
from prunesid.study.report.arm_facts import count_text, facts_table
from prunesid.study.report.fidelity import agreement_of, code_of
from prunesid.study.report.figure import write_drawn
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
KINDS = {FAMILY: "By question family", PHI: "By information score φ: thirds of the images"}


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
    spent = subject.needed("facts")
    rows = tuple(row for row in ablation.rows if row.as_dict().get("method") == method)
    cells = tuple(cell for cell in ablation.cells if cell.row in rows)
    params = cells[0].arms[0].params
    known = about(method, **params)
    losses = method_losses.points(subject, rows)
    part = replace(ablation, rows=rows, cells=cells)
    facts = facts_table(spent, agreement, part)
    whole = spent.loc[spent["arm"] == ALL_TOKENS, "total_macs"].mean()
    costs: tuple[Table, ...] = ()
    if facts is not None:
        words = caption.facts_text(facts.columns)
        with_all = f"With all tokens a question takes {count_text(whole)} multiply-adds."
        texts = (words[0].upper() + words[1:], with_all)
        costs = (replace(facts, title="Tokens and multiply-adds", caption=texts),)
    return MethodPage(
        title=rows[0].label,
        about=known,
        words=(_description(known, part), *_parameters(known, part)),
        numbers=(_accuracy(subject, rows, part), _strata(subject, rows, losses), *costs),
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
    write_drawn(drawn, page.losses, [svg, png, points])
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
    parts = [f"## {page.title}", page.about.summary, formats.to_markdown(page.words[0]).strip()]
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
    for row in part.rows:
        arm = next(cell for cell in part.cells if cell.row == row).arms[0]
        needs = about(known.name, **arm.params).needs
        read = ", ".join(READS.get(need, need) for need in needs) or "nothing"
        if read not in found.values():
            found[row.label] = read
    first, *others = found.items()
    return "; ".join([first[1], *(f"{label}: {read}" for label, read in others)])


def _parameters(known: About, part: Ablation) -> tuple[Table, ...]:
    """Every parameter with its default, its choices and what each row runs it with."""
    used = [next(c for c in part.cells if c.row == row).arms[0].resolved() for row in part.rows]
    rows = []
    for name, param in known.params.items():
        choices = ", ".join(text(value) for value in param.values())
        if not choices and param.minimum is not None:
            choices = f"from {param.minimum:g}"
        given = (text(values[name]) for values in used)
        cells = (text(param.default), choices, *given)
        rows.append(TableRow(name, tuple(map(TableCell, cells))))
    columns = ("default", "choices", *(row.label for row in part.rows))
    return (_plain("Parameters", columns, tuple(rows)),) if rows else ()


def _plain(title: str, columns: tuple[str, ...], rows: tuple[TableRow, ...]) -> Table:
    block = Block("facts", "", rows)
    return Table(title, (("", len(columns)),), columns, (block,), (), words=True)


def _accuracy(subject: Subject, rows: Sequence[Setting], part: Ablation) -> Table:
    """Every column of every row, and of the reference, with the rank by the average."""
    ablation, reference = subject.ablation, subject.ablation.reference
    names = [*(b.name for b in subject.benchmarks), AVERAGE]
    lines = lines_of(subject.comparison)
    whole = [value_cell(lines[ALL_TOKENS, ALL, name]) for name in names[:-1]]
    first = TableRow("all tokens", (*whole, TableCell("100"), TableCell(), TableCell()))
    blocks = [Block("ours", "", (first,))]
    for row in dict.fromkeys([*rows, reference]):
        found = []
        for column in ablation.columns_of(row):
            key = column.key or ALL
            own = lines[row.key, key, AVERAGE]
            rivals = [lines[c.row.key, key, AVERAGE] for c in ablation.cells if c.column == column]
            better = sum(rival["value"] > own["value"] for rival in rivals)
            difference = TableCell() if row == reference else difference_cell(own)
            cells = (
                *(value_cell(lines[row.key, key, name]) for name in names), difference,
                TableCell(f"{better + 1} of {len(rivals)}"),
            )  # fmt: skip
            found.append(TableRow(column.label if column.values else row.label, cells))
        title = row.label + (", the reference" if row == reference else "")
        blocks.append(Block("facts", title, tuple(found)))
    columns = (*(b.title for b in subject.benchmarks), "Avg.", f"from {reference.label}", "rank")
    return Table(
        "Accuracy", (("", len(columns)),), columns, tuple(blocks),
        (
            caption.definition(subject),
            "Avg.: mean over benchmarks of the value as a percentage of the value with all tokens; "
            f"beside it its difference from {reference.label}, and its rank among the rows of this "
            "ablation. †: p < 0.05 after Holm's correction over the tests of the ablation. "
            f"{caption.TEST}",
            *filter(None, [caption.counts(part)]),
        ),
    )  # fmt: skip


def _strata(subject: Subject, rows: Sequence[Setting], losses: pd.DataFrame) -> Table:
    """The change in every stratum under every column, in the order of the picture."""
    keys = ["kind", "benchmark", "stratum", "row", "column"]
    lines = subject.needed("strata").set_index(keys)
    columns_of = subject.ablation.columns_of
    series = [(row, column) for row in rows for column in columns_of(row)]
    strata = dict.fromkeys(zip(losses["kind"], losses["benchmark"], losses["stratum"], strict=True))
    blocks = []
    for kind, heading in KINDS.items():
        found = []
        for own in (key for key in strata if key[0] == kind):
            one = lines.loc[(*own, series[0][0].key, series[0][1].key or ALL)]
            cells = [TableCell(f"{one['questions']:.0f}"), TableCell(f"{one['whole']:.1f}")]
            cells += [
                _change(lines.loc[(*own, row.key, column.key or ALL)]) for row, column in series
            ]
            found.append(TableRow(f"{subject.titles[own[1]]}: {own[2]}", tuple(cells)))
        blocks.append(Block("facts", heading, tuple(found)))
    groups = (("", 2), *((row.label, len(columns_of(row))) for row in rows))
    under = tuple(column.label if column.values else "change" for _, column in series)
    return Table(
        "Where it fails", groups, ("questions", "all tokens", *under),
        tuple(block for block in blocks if block.rows),
        (
            "Share of right answers with all tokens in percent, and the change from it in "
            f"percentage points with its {subject.confidence} interval over images. †: the interval leaves out 0, not corrected for the number of lines.",
        ),
    )  # fmt: skip


def _change(line: pd.Series) -> TableCell:
    low, high = float(line["diff_low"]), float(line["diff_high"])
    return TableCell(
        signed(float(line["diff"]), 1), f"{signed(low, 1)} to {signed(high, 1)}",
        mark=low > 0 or high < 0,
    )  # fmt: skip
