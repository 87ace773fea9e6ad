"""The table in LaTeX: every row and cell, switches, any label, and it compiles."""

import re
import shutil
import subprocess
from dataclasses import replace

import pytest
from builders.synthetic_scores import BENCHMARKS, ROOT, ablation_of, scores_of

from prunesid.study.analysis.comparison import compare
from prunesid.study.config.study import Bootstrap
from prunesid.study.report.figures import Subject
from prunesid.study.report.latex import ESCAPES, escaped, to_latex
from prunesid.study.report.paper import load_paper
from prunesid.study.report.table import Block, Table, TableCell, TableRow, build_table

FEW = Bootstrap(resamples=200)
HOSTILE = r"a&b_c%d#e$f{g}h~i^j\k<l>m|n[2] τ ≥ “é” 樹 −3 ± φ"


@pytest.fixture(scope="module")
def table():
    ablation = ablation_of(
        title=f"Token grouping & {HOSTILE}",
        vary={"grouping": ["random", "kmeans", "psca"]},
        across={"budget": [64, 128]},
        reference={"grouping": "psca"},
        labels={"grouping": {"kmeans": HOSTILE}},
        table={"paper_table": 5},
    )
    comparison = compare(scores_of(ablation.arms, images=60), ablation, BENCHMARKS, FEW)
    facts = Table("Facts", (("", 1),), ("τ",), (Block("facts", "", (fact(),)),), ())
    subject = Subject(comparison, ablation, BENCHMARKS, FEW)
    return build_table(subject, load_paper(ROOT / "configs" / "paper"), facts)


def fact():
    return TableRow("random", (TableCell("0.1", "0.0–0.2"),))


def rows_of(text):
    return [line for line in text.splitlines() if line.endswith(r" \\") and " & " in line]


def test_every_row_has_every_column(table):
    text = to_latex(table).partition(r"\prunesidfacts{%")[0]
    rows = rows_of(text)
    blocks = [row for block in table.blocks for row in block.rows]
    assert len(rows) == 2 + len(blocks)
    for line in rows[1:]:
        assert len(re.findall(r"(?<!\\)&", line)) == len(table.columns)
    spans = map(int, re.findall(r"\\multicolumn\{(\d+)\}\{c\}", rows[0]))
    assert sum(spans) == len(table.columns)


def test_values_bold_and_daggers_are_those_of_the_table(table):
    text = to_latex(replace(table, facts=None))
    cells = [cell for block in table.blocks for row in block.rows for cell in row.cells]
    assert text.count(r"\textbf{") == sum(cell.best for cell in cells) > 0
    marked = sum(cell.mark for cell in cells)
    assert text.count(r"$\dagger$") == marked + 1  # and what it means
    assert marked > 0
    with_intervals = sum(bool(cell.interval) for cell in cells)
    assert text.count(r"& \prunesidcell{") == with_intervals > 0


def test_the_papers_numbers_stand_in_a_switch(table):
    inside = re.findall(r"\\prunesidpaper\{%\n(.*?)\n\}%", to_latex(table), flags=re.DOTALL)
    assert len(inside) == 2
    for block, text in zip(table.blocks[-2:], inside, strict=True):
        assert block.kind.startswith("paper")
        assert len(rows_of(text)) == len(block.rows)


def test_no_letter_is_a_command():
    for letter, shown in ESCAPES.items():
        assert escaped(letter) == shown
    assert escaped("a_b & 50 %") == r"a\_b \& 50 \%"
    assert escaped("é 樹\n\x07") == "é [U+6A39]  "
    assert r"\cmd" not in escaped(r"\cmd")


# Values, intervals and daggers as a reader sees them depend on macros, which only LaTeX expands.
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex and booktabs")
@pytest.mark.parametrize("switched", [False, True])
def test_it_compiles(table, tmp_path, switched):
    (tmp_path / "table.tex").write_text(to_latex(table), encoding="utf-8")
    off = r"""
\newcommand{\prunesidcell}[2]{#1}\newcommand{\prunesidpaper}[1]{}\newcommand{\prunesidfacts}[1]{}
"""
    (tmp_path / "paper.tex").write_text(
        r"\documentclass{article}\usepackage{booktabs,graphicx}\begin{document}"
        + off * switched
        + "\\input{table}\\input{table}\\end{document}\n",
        encoding="utf-8",
    )
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "paper.pdf").stat().st_size
    assert "Missing character" not in (tmp_path / "paper.log").read_text(errors="replace")
