"""A table as LaTeX for a paper: `\\input{table}` in a document with booktabs and graphicx.

What it shows is chosen before the input:

    \\newcommand{\\prunesidcell}[2]{#1}    % values without their intervals
    \\newcommand{\\prunesidpaper}[1]{}     % without the paper's numbers
    \\newcommand{\\prunesidfacts}[1]{}     % without the second table

A table that is wider than the text is scaled to it. Bold, daggers and headings are as in the HTML.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prunesid.study.report.table import Block, Table, TableCell

HEAD = r"""% Needs \usepackage{booktabs,graphicx}. To leave something out, define before this file:
% \newcommand{\prunesidcell}[2]{#1} for values without intervals,
% \newcommand{\prunesidpaper}[1]{} for no numbers of the paper,
% \newcommand{\prunesidfacts}[1]{} for no second table.
\providecommand{\prunesidcell}[2]{\shortstack{#1\\[-1pt]{\tiny #2}}}
\providecommand{\prunesidpaper}[1]{#1}
\providecommand{\prunesidfacts}[1]{#1}
\ifdefined\prunesidbox\else\newsavebox{\prunesidbox}\fi
"""
# What LaTeX reads as commands, and what its usual fonts have under another name.
ESCAPES = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "–": "--",
    "—": "---",
    "−": r"$-$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "†": r"\textsuperscript{$\dagger$}",
    "Δ": r"$\Delta$",
    "φ": r"$\varphi$",
    "ρ": r"$\rho$",
    "τ": r"$\tau$",
    "λ": r"$\lambda$",
    "µ": r"$\mu$",
    "μ": r"$\mu$",
    "“": "``",
    "”": "''",
    "…": r"\dots{}",
    "→": r"$\to$",
    "\N{NO-BREAK SPACE}": "~",
}
BEST = "Bold: the highest of the compared rows."
MARKED = "†: differs from the reference, p < 0.05 after Holm's correction."


def to_latex(table: Table) -> str:
    """The table as a float of two columns' width, then that of facts; the caption as comments."""
    words = (f"% {line}" for text in table.caption for line in text.splitlines())
    second = f"\\prunesidfacts{{%\n{_float(table.facts)}}}\n" if table.facts else ""
    return f"{HEAD}{_float(table)}{second}" + "".join(f"{line.rstrip()}\n" for line in words)


def escaped(text: str) -> str:
    """Text that LaTeX sets letter by letter, in one line.

    A letter that its usual encoding lacks stands as the name of its code point, so that a paper
    compiles.
    """
    return "".join(ESCAPES.get(letter) or _known(letter) for letter in " ".join(text.split(" ")))


def _known(letter: str) -> str:
    if letter.isascii():
        return letter if letter.isprintable() else " "
    # Latin letters with accents are in the fonts of every LaTeX.
    base = unicodedata.normalize("NFD", letter)[0]
    return letter if base.isascii() and base.isalpha() else f"[U+{ord(letter):04X}]"


def _float(table: Table) -> str:
    cells = [cell for block in table.blocks for row in block.rows for cell in row.cells]
    notes = [BEST] * any(cell.best for cell in cells) + [MARKED] * any(cell.mark for cell in cells)
    caption = " ".join(escaped(text) for text in (f"{table.title}.", *notes))
    columns = ("l" if table.words else "r") * len(table.columns)
    lines = [
        r"\begin{table*}[t]",
        r"\centering\small",
        f"\\caption{{{caption}}}",
        f"\\label{{tab:{_label(table.title)}}}",
        r"\smallskip",
        r"\sbox{\prunesidbox}{%",
        f"\\begin{{tabular}}{{l{columns}}}",
        r"\toprule",
        *_head(table),
        *(line for block in table.blocks for line in _block(block, len(table.columns))),
        r"\bottomrule",
        r"\end{tabular}}%",
        r"\ifdim\wd\prunesidbox>\textwidth\resizebox{\textwidth}{!}{\usebox{\prunesidbox}}%",
        r"\else\usebox{\prunesidbox}\fi",
        r"\end{table*}",
    ]
    return "\n".join(lines) + "\n"


def _label(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def _head(table: Table) -> Iterator[str]:
    if any(label for label, _ in table.groups):
        rules, first = [], 2
        for label, span in table.groups:
            if label:
                rules.append(f"\\cmidrule(lr){{{first}-{first + span - 1}}}")
            first += span
        spans = (
            f"\\multicolumn{{{span}}}{{c}}{{{escaped(label)}}}" for label, span in table.groups
        )
        yield f" & {' & '.join(spans)} \\\\"
        yield " ".join(rules)
    yield f" & {' & '.join(map(escaped, table.columns))} \\\\"
    yield r"\midrule"


def _block(block: Block, columns: int) -> Iterator[str]:
    """The rows of a block below its title; the paper's ones can be switched off."""
    paper = block.kind.startswith("paper")
    if paper:
        yield r"\prunesidpaper{%"
    if block.title:
        yield r"\midrule"
        yield f"\\multicolumn{{{columns + 1}}}{{l}}{{\\emph{{{escaped(block.title)}}}}} \\\\"
    for row in block.rows:
        # Braces keep a label like "[2]" apart from the end of the row before it.
        yield f"{{{escaped(row.label)}}} & {' & '.join(map(_cell, row.cells))} \\\\"
    if paper:
        yield "}%"


def _cell(cell: TableCell) -> str:
    value = f"\\textbf{{{escaped(cell.value)}}}" if cell.best else escaped(cell.value)
    value += escaped("†") if cell.mark else ""
    small = " ".join(escaped(text) for text in (cell.interval, cell.spread) if text)
    return f"\\prunesidcell{{{value}}}{{{small}}}" if small else value
