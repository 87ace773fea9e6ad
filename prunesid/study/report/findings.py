"""What the numbers of a study say, in sentences; every number in them comes from its tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from prunesid.core.files import atomic
from prunesid.study.analysis.comparison import ALL, AVERAGE
from prunesid.study.analysis.latency import WHOLE
from prunesid.study.config.ablation import Ablation, Cell, Setting
from prunesid.study.config.arm import ALL_TOKENS
from prunesid.study.config.chapters import METHODS
from prunesid.study.report.figures import Subject
from prunesid.study.report.table import LEVEL, Lines, lines_of
from prunesid.study.report.templates import render

# Names in a sentence; further ones are counted.
NAMED = 6


def seen(ablation: Ablation, comparison: pd.DataFrame, pairs: pd.DataFrame) -> str:
    """The main result of an ablation in a sentence or two; '' if nothing was compared.

    If the ablation compares methods, it is the method that keeps the most. Otherwise it is the
    largest difference from the reference, or that none is significant. All numbers are of averages
    over benchmarks, in points of the percentage of all tokens.

    pairs  every two rows of the ablation, as `pairs.read_pairs` gives them
    """
    if len(ablation.methods) >= max(METHODS, len(ablation.rows) / 2):
        return " ".join(leaders(ablation, comparison, pairs)[:1])
    tested = _tested(ablation, lines_of(comparison))
    if not tested:
        return ""
    sure = [(cell, line) for cell, line in tested if line["p_holm"] < LEVEL]
    cell, line = max(sure or tested, key=lambda each: abs(each[1]["diff"]))
    said = _difference(ablation, cell, line)
    if len(tested) == 1:
        return _sentence(f"{said}; this is {'' if sure else 'not '}significant.")
    if len(sure) == 1:
        return _sentence(f"{said}, the only significant difference among {len(tested)}.")
    if sure:
        many = f"the largest of {len(sure)} significant differences among {len(tested)}"
        return _sentence(f"{said}, {many}.")
    return (
        f"None of {len(tested)} differences from {ablation.reference.label} is significant after "
        f"correction for multiple tests; the largest: {said}."
    )


def write_summary(subject: Subject, output: Path) -> None:
    """Write what an ablation asks and what to see in it, as a fragment of HTML.

    ValueError where the subject lacks pairs.
    """
    said = seen(subject.ablation, subject.comparison, subject.needed("pairs"))
    with atomic(output) as part:
        text = render("summary.html", ablation=subject.ablation, seen=said)
        part.write_text(text, encoding="utf-8", newline="\n")


def fastest(ablation: Ablation, times: pd.DataFrame) -> str:
    """How long a request takes with all tokens, and under the fastest arm; '' without others.

    times  as `analysis.latency.read_latency` gives them
    """
    own = times[(times["what"] == WHOLE) & (times["attention"] == "")]
    own = own[own["batch"] == own["batch"].min()].set_index("arm")
    others = own.drop(index=ALL_TOKENS)
    if others.empty:
        return ""
    arm = str(others["p50"].idxmin())
    return (
        f"A request takes {_milliseconds(own.loc[ALL_TOKENS])} with all tokens; the fastest is "
        f"{ablation.labels[arm]}: {_milliseconds(own.loc[arm])}."
    )


def largest(found: Iterable[tuple[str, Ablation, pd.DataFrame]]) -> str:
    """The largest significant difference of ablations that do not compare methods; '' without one.

    found  the name of each ablation's model, the ablation and its comparison
    """
    best: tuple[float, str] = (0.0, "")
    for model, ablation, comparison in found:
        if ablation.methods:
            continue
        for cell, line in _tested(ablation, lines_of(comparison)):
            if line["p_holm"] < LEVEL and abs(line["diff"]) > best[0]:
                said = f"{ablation.title}, on {model}: {_difference(ablation, cell, line)}."
                best = (abs(line["diff"]), said)
    return best[1]


def leaders(ablation: Ablation, comparison: pd.DataFrame, pairs: pd.DataFrame) -> list[str]:
    """Texts: which row keeps the most at the smallest budget, and the place of the reference.

    [] for fewer than two rows; nothing on a reference that is the first row or not among them.

    pairs  every two rows of the ablation, as `pairs.read_pairs` gives them
    """
    lines, column = lines_of(comparison), ablation.columns[0]
    cells = {c.row: lines[c.row.key, column.key or ALL, AVERAGE] for c in _under(ablation, column)}
    if len(cells) < 2:
        return []
    sure = better(pairs, column)
    ranked = sorted(cells, key=lambda row: -cells[row]["value"])
    first, reference = ranked[0], ablation.reference
    equal = [row.label for row in ranked[1:] if (first.key, row.key) not in sure]
    at = f" at {column.label}" if column.values else ""
    others = len(ranked) - 1
    said = (
        f"{first.label} keeps the most{at}: {_kept(cells[first])} of the accuracy with all tokens. "
    )
    if equal:
        many = f"{len(equal)} of the {others} others" if others > 1 else "the other"
        said += f"Not significantly less: {many} ({_names(equal)})."
    else:
        said += f"Significantly less: {f'all {others} others' if others > 1 else 'the other'}."
    found = [_sentence(said)]
    if reference in cells and reference != first:
        above = [row.label for row in ranked if (row.key, reference.key) in sure]
        below = [row.label for row in ranked if (reference.key, row.key) in sure]
        place = 1 + sum(cells[row]["value"] > cells[reference]["value"] for row in ranked)
        found.append(
            f"{reference.label} is in place {place} of {len(ranked)}{at}: "
            f"{_kept(cells[reference])}. Significantly better: {_names(above) or 'none'}. "
            f"Significantly worse: {_names(below) or 'none'}."
        )
    return found


def shared_out(found: Iterable[tuple[str, Ablation, pd.DataFrame]]) -> str:
    """A sentence on what dynamic budgets change at the smallest budget, by model; '' without."""
    parts = []
    for model, ablation, comparison in found:
        tested = _tested(ablation, lines_of(comparison))
        first = [each for each in tested if each[0].column == ablation.columns[0]][:1]
        for cell, line in first:
            sure = "" if line["p_holm"] < LEVEL else ", not significant"
            at = f" at {cell.column.label}" if cell.column.values else ""
            parts.append(f"{_signed(line['diff'])} points ({_span(line)}{sure}){at} on {model}")
    if not parts:
        return ""
    return f"Dynamic budgets, the paper's table 7, change what is kept by {'; '.join(parts)}."


def traveled(numbers: pd.DataFrame) -> str:
    """Sentences on how far models agree on the order of methods; '' if none can be compared.

    numbers  those of the page on travel
    """
    pairs = numbers[(numbers["part"] == "difference") & (numbers["budget"] == 1)]
    if pairs.empty:
        return ""
    counts = pairs["verdict"].value_counts()
    said = (
        f"Of {len(pairs)} pairs of methods that several models have, {counts.get('everywhere', 0)} "
        f"differ significantly, and alike, on all of them at the smallest budget, "
        f"{counts.get('turned', 0)} turn round."
    )
    own = numbers[(numbers["part"] == "correlation") & (numbers["budget"] == 1)]
    own = own[~own["source"].astype(str).str.startswith("paper")].dropna(subset="value")
    if len(own):
        line = own.loc[own["value"].idxmax()]
        said += (
            f" The orders most alike are those on {line['model']} and {line['source']}: Kendall's "
            f"τ {_signed(line['value'], 2)} ({_signed(line['low'], 2)} to "
            f"{_signed(line['high'], 2)})."
        )
    return said


def better(pairs: pd.DataFrame, column: Setting) -> frozenset[tuple[str, str]]:
    """The pairs of rows of which the first keeps significantly more under a column."""
    own = pairs[(pairs["benchmark"] == AVERAGE) & (pairs["column"] == (column.key or ALL))]
    own = own[(own["p_holm"] < LEVEL) & (own["diff"] > 0)]
    return frozenset(own[["row", "other"]].itertuples(index=False, name=None))


def _under(ablation: Ablation, column: Setting) -> list[Cell]:
    return [cell for cell in ablation.cells if cell.column == column]


def _tested(ablation: Ablation, lines: Lines) -> list[tuple[Cell, Mapping[Any, Any]]]:
    """The cells whose average was tested against the reference's, with their lines."""
    found = [
        (cell, lines[cell.row.key, cell.column.key or ALL, AVERAGE])
        for cell in ablation.cells
        if cell.row != ablation.reference
    ]
    return [(cell, line) for cell, line in found if pd.notna(line["p_holm"])]


def _difference(ablation: Ablation, cell: Cell, line: Mapping[Any, Any]) -> str:
    """'K = 8 keeps 5.3 points less than K = 16 at 64 tokens (-7.0 to -3.2)'."""
    more = "more" if line["diff"] > 0 else "less"
    at = f" at {cell.column.label}" if cell.column.values else ""
    return (
        f"{cell.row.label} keeps {abs(line['diff']):.1f} points {more} than "
        f"{ablation.reference.label}{at} ({_span(line)})"
    )


def _kept(line: Mapping[Any, Any]) -> str:
    return f"{line['value']:.1f} % ({line['ci_low']:.1f} to {line['ci_high']:.1f})"


def _span(line: Mapping[Any, Any]) -> str:
    return f"{_signed(line['diff_low'])} to {_signed(line['diff_high'])}"


def _signed(value: float, places: int = 1) -> str:
    shown = f"{value:+.{places}f}".replace("-", "−")
    return shown[1:] if float(f"{value:.{places}f}") == 0 else shown


def _milliseconds(line: Mapping[Any, Any]) -> str:
    value, low, high = (f"{1000 * line[name]:.3g}" for name in ("p50", "p50_low", "p50_high"))
    return f"{value} ms ({low} to {high})"


def _sentence(text: str) -> str:
    """The text with a capital first letter, unless it starts with a letter that is not ASCII."""
    return text[0].upper() + text[1:] if text[:1].isascii() else text


def _names(labels: Sequence[str]) -> str:
    shown = list(labels[:NAMED])
    if len(labels) > NAMED:
        shown.append(f"{len(labels) - NAMED} more")
    return "; ".join(shown)
