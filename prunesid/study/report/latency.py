"""Table 8, and the pictures of time: accuracy against it, and what it is spent on.

The table has a line per arm: the time of one request and of its prefill as in the paper, how much
faster than all tokens that is, what multiply-adds would give, and requests per second when several
are answered together. The paper's numbers stand below; they are of another model and machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from prunesid.core.costs import STATIONS
from prunesid.study.analysis.comparison import ALL
from prunesid.study.analysis.latency import FIRST, TOKEN, WHOLE
from prunesid.study.config.arm import ALL_TOKENS
from prunesid.study.report import panels, theme
from prunesid.study.report.arm_facts import count_text
from prunesid.study.report.figures import Subject
from prunesid.study.report.paper import PRINTED_PRESETS, Paper
from prunesid.study.report.table import Block, Table, TableCell, TableRow, lines_of, value_cell

TITLES = {
    "preprocess": "preprocess",
    "encode": "vision tower",
    "select": "choice of tokens",
    "project": "projector",
    "prefill": "prefill",
    "decode": "decode",
}
SHADES = dict(
    zip(STATIONS, ("#b4bec8", "#648fff", "#dc267f", "#ffb000", "#fe6100", "#785ef0"), strict=True)
)
MAC_NOTE = "vision tower, choice of tokens and language model"


@dataclass(frozen=True)
class Clocked:
    """All that table and pictures show.

    subject    the ablation; its comparison has the accuracy
    times      as `analysis.latency.summarize` gives them
    benchmark  whose questions were asked
    """

    subject: Subject
    times: pd.DataFrame
    benchmark: str

    @property
    def batches(self) -> list[int]:
        """Requests at once, in order; the first is one."""
        return list(dict.fromkeys(self.times["batch"]))

    def line(self, arm: str, what: str, batch: int | None = None, attention: str = "") -> Any:
        """The line of an arm; None where there is none."""
        size = self.batches[0] if batch is None else batch
        own = self.times
        found = own[
            (own["arm"] == arm)
            & (own["what"] == what)
            & (own["batch"] == size)
            & (own["attention"] == attention)
        ]
        return None if found.empty else found.iloc[0]

    @property
    def sample(self) -> str:
        """The requests that were clocked."""
        own = self.times[(self.times["arm"] == ALL_TOKENS) & (self.times["what"] == WHOLE)]
        first = own[own["batch"] == self.batches[0]].iloc[0]
        title = self.subject.titles[self.benchmark]
        left = self.subject.left_out.get(self.benchmark)
        of = f"{title} ({left})" if left else title
        return f"{int(first['questions'])} requests of {of}, one image each, on {first['machine']}"


def _in_parts(clocked: Clocked) -> list[str]:
    """A sentence on the batches that memory did not suffice for."""
    own = clocked.times[clocked.times["at_once"] < clocked.times["batch"]]
    parts = own.drop_duplicates(["arm", "attention", "batch"])
    said = ", ".join(
        f"{line.arm} at {line.batch} at most {line.at_once} at once" for line in parts.itertuples()
    )
    return [f"Served in parts, as memory did not suffice for all: {said}."] if said else []


def latency_table(clocked: Clocked, paper: Paper | None = None) -> Table:
    """The paper's table 8 of this study, and the paper's own numbers below."""
    subject, batches = clocked.subject, clocked.batches
    ablation = subject.ablation
    columns = (
        "tokens", "time (ms)", "95th percentile", "prefill (ms)", "to first token", "by count",
        "achieved", "KV cache", "peak memory", "tokens/s", subject.titles[clocked.benchmark],
    )  # fmt: skip
    served = tuple("one by one" if size == 1 else f"{size} at once" for size in batches)
    top = [_row(clocked, "all tokens", ALL_TOKENS, ALL, ALL_TOKENS)]
    flash = clocked.times["attention"].ne("") & clocked.times["arm"].eq(ALL_TOKENS)
    for kernel in clocked.times.loc[flash, "attention"].unique():
        label = f"all tokens, {kernel.replace('_', ' ')}"
        top.append(_row(clocked, label, ALL_TOKENS, ALL, ALL_TOKENS, kernel))
    blocks = [Block("ours", "", tuple(top))]
    for column in ablation.columns:
        cells = [cell for cell in ablation.cells if cell.column == column]
        rows = tuple(
            _row(clocked, cell.row.label, cell.row.key, column.key or ALL, cell.arms[0].name)
            for cell in cells
            if not cell.arms[0].is_vanilla
        )
        blocks.append(Block("facts", column.label if column.values else "", rows))
    if paper is not None:
        blocks += _printed(clocked, paper, len(columns) + len(served))
    same = clocked.times[clocked.times["what"] == WHOLE]
    equal, asked = int(same["same"].sum()), int(same["questions"].sum())
    return Table(
        title=f"{ablation.title}: time",
        groups=(("One request", len(columns)), ("Requests per second", len(served))),
        columns=(*columns, *served),
        blocks=tuple(block for block in blocks if block.rows),
        caption=(
            f"{clocked.sample}. Nothing is shared between requests; answers come from the model's "
            f"own generate(). {equal:,} of {asked:,} clocked answers are those of the study, from "
            f"which {subject.titles[clocked.benchmark]} is.",
            "Medians with their intervals; arms take turns batch by batch. Time runs from the "
            "image to the last token, texts being tokenized. 'To first token' is the speed-up over "
            "all tokens from the vision tower to the first token; 'by count' what multiply-adds of "
            f"{MAC_NOTE} give, and 'achieved' is the first in percent of the second.",
            "KV cache: keys and values of a request when its answer is complete. Peak memory: of "
            "the device, or of the whole process on a CPU. Tokens per second: after the first.",
            *_in_parts(clocked),
        ),
    )


def _row(
    clocked: Clocked, label: str, row: str, column: str, arm: str, attention: str = ""
) -> TableRow:
    whole = clocked.line(arm, WHOLE, attention=attention)
    prefill = clocked.line(arm, "prefill", attention=attention)
    first = clocked.line(arm, FIRST, attention=attention)
    token = clocked.line(arm, TOKEN, attention=attention)
    accuracy = lines_of(clocked.subject.comparison).get((row, column, clocked.benchmark))
    served = (clocked.line(arm, WHOLE, size, attention) for size in clocked.batches)
    cells = (
        TableCell(f"{whole['tokens']:.4g}"),
        _milliseconds(whole, "p50"),
        _milliseconds(whole, "p95"),
        _milliseconds(prefill, "p50"),
        _times(first),
        TableCell("" if np.isnan(first["counted"]) else f"{first['counted']:.2f}×"),
        TableCell("" if np.isnan(first["achieved"]) else f"{100 * first['achieved']:.0f} %"),
        TableCell(_bytes(whole["kv_bytes"])),
        TableCell("" if np.isnan(whole["memory"]) else _bytes(whole["memory"])),
        TableCell("" if token is None else f"{token['per_second']:.3g}"),
        TableCell() if accuracy is None else value_cell(accuracy),
        *(_rate(line) for line in served),
    )
    return TableRow(label, cells)


def _milliseconds(line: Any, name: str) -> TableCell:
    value, low, high = (1000 * line[name + end] for end in ("", "_low", "_high"))
    return TableCell(_three(value), _span(low, high, _three))


def _times(line: Any) -> TableCell:
    value, low, high = (line[f"speedup{end}"] for end in ("", "_low", "_high"))
    return TableCell(f"{value:.2f}×", _span(low, high, "{:.2f}".format))


def _rate(line: Any) -> TableCell:
    value, low, high = (line[f"per_second{end}"] for end in ("", "_low", "_high"))
    return TableCell(_three(value), _span(low, high, _three))


def _span(low: float, high: float, show: Any) -> str:
    return "" if np.isnan(low) or np.isnan(high) else f"{show(low)}–{show(high)}"


def _three(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _bytes(value: float) -> str:
    return f"{count_text(value)}B"


def _printed(clocked: Clocked, paper: Paper, width: int) -> list[Block]:
    """The rows of the paper's table that are of the ablation's methods, whatever their budget."""
    ablation = clocked.subject.ablation
    number = ablation.table.paper_table
    if number is None:
        return []
    benchmark = next(b for b in clocked.subject.benchmarks if b.name == clocked.benchmark)
    places = {"total_ms": 1, "prefill_ms": 3, benchmark.paper_column or "": 10}
    labels = {ALL_TOKENS: "all tokens"}
    for cell in ablation.cells:
        arm = cell.arms[0]
        if arm.dynamic is None and arm.params.get("preset") in {None, *PRINTED_PRESETS}:
            labels.setdefault(arm.method, cell.row.label)
    found: dict[tuple[str, str], list[TableCell]] = {}
    for (table, method, _, tokens, column), value in paper.cells.items():
        if table == str(number) and method in labels and column in places:
            empty = [TableCell(tokens), *[TableCell()] * (width - 1)]
            found.setdefault((method, tokens), empty)[places[column]] = TableCell(f"{value:g}")
    rows = tuple(TableRow(labels[method], tuple(cells)) for (method, _), cells in found.items())
    title = f"Paper, table {number}: {paper.model_of(ablation)} on one A800-80GB"
    return [Block("paper", title, rows)]


def speed_points(clocked: Clocked) -> pd.DataFrame:
    """A line per row and column: accuracy with its interval, seconds and multiply-adds."""
    subject = clocked.subject
    facts = subject.needed("facts")
    macs = facts[facts["benchmark"] == clocked.benchmark].drop_duplicates("arm").set_index("arm")
    accuracy = lines_of(subject.comparison)
    arms = [(ALL_TOKENS, ALL, ALL_TOKENS)]
    arms += [(c.row.key, c.column.key or ALL, c.arms[0].name) for c in subject.ablation.cells]
    lines = []
    for row, column, arm in arms:
        value, whole = accuracy[row, column, clocked.benchmark], clocked.line(arm, WHOLE)
        parts = {name: clocked.line(arm, name) for name in STATIONS}
        lines.append(
            {"row": row, "column": column, "arm": arm}
            | {name: value[name] for name in ("value", "ci_low", "ci_high")}
            | {name: whole[name] for name in ("p50", "p50_low", "p50_high")}
            | {"macs": macs.loc[arm, "total_macs"]}
            | {name: 0.0 if part is None else part["p50"] for name, part in parts.items()}
        )
    return pd.DataFrame(lines)


@theme.style()
def draw_speed(data: pd.DataFrame, clocked: Clocked) -> Figure:
    """Accuracy against measured time, and beside it against multiply-adds."""
    subject = clocked.subject
    ablation, title = subject.ablation, subject.titles[clocked.benchmark]
    shades = theme.colors([row.key for row in ablation.rows])
    marks = {c.key or ALL: theme.marker(place) for place, c in enumerate(ablation.columns)}
    drawn = theme.figure(theme.TEXT, 3.6)
    axes = drawn.subplots(1, 2, sharey=True)
    sides = (("p50", 1000.0, "time of one request (ms)"), ("macs", 1.0, "multiply-adds"))
    for ax, (name, scale, label) in zip(axes, sides, strict=True):
        for line in data.itertuples():
            at, whole = scale * getattr(line, name), line.row == ALL_TOKENS
            color = theme.INK if whole else shades[line.row]
            ax.vlines(at, line.ci_low, line.ci_high, color=color, linewidth=0.8, alpha=0.4)
            if name == "p50":
                low, high = scale * line.p50_low, scale * line.p50_high
                ax.hlines(line.value, low, high, color=color, linewidth=0.8, alpha=0.4)
            mark, size = ("*", 8) if whole else (marks[line.column], 5)
            ax.plot(at, line.value, marker=mark, markersize=size, color=color, linestyle="")
        _log_axis(ax, name)
        ax.set_xlabel(label)
        ax.grid(True, axis="both")
    axes[0].set_ylabel(title)
    entries: dict[str, Any] = {
        row.label: Line2D([], [], color=shades[row.key], marker="o", linestyle="")
        for row in ablation.rows
    }
    if len(marks) > 1:
        for column, mark in zip(ablation.columns, marks.values(), strict=True):
            entries[column.label] = Line2D([], [], color=theme.MUTED, marker=mark, linestyle="")
    entries[panels.WHOLE] = Line2D([], [], color=theme.INK, marker="*", linestyle="")
    panels.legend(drawn, [], entries)
    panels.note(
        drawn,
        f"Left: median over {clocked.sample}, from the image to the last token. Right: {MAC_NOTE} "
        "by formulas, up to the first token; a method without a formula stands further left than "
        f"it should. Upright bars: {subject.confidence} intervals over images; level bars: of the "
        "median.",
    )
    return drawn


@theme.style()
def draw_stations(data: pd.DataFrame, clocked: Clocked) -> Figure:
    """The time of one request, station by station, a bar per arm."""
    ablation = clocked.subject.ablation
    labels = {row.key: row.label for row in ablation.rows} | {ALL_TOKENS: panels.WHOLE}
    columns = [column.key or ALL for column in ablation.columns]
    whole = data[data["row"] == ALL_TOKENS]
    parts = [pd.concat([whole, data[data["column"] == column]]) for column in columns]
    drawn = theme.figure(theme.TEXT, 0.9 + sum(0.35 + 0.2 * len(part) for part in parts))
    sizes = [len(part) + 1 for part in parts]
    axes = drawn.subplots(len(parts), 1, sharex=True, squeeze=False, height_ratios=sizes)[:, 0]
    for ax, own, column in zip(axes, parts, ablation.columns, strict=True):
        left = np.zeros(len(own))
        for station in STATIONS:
            width = 1000 * own[station].to_numpy(np.float64)
            ax.barh(range(len(own)), width, left=left, color=SHADES[station], height=0.72)
            left += width
        for place, end in enumerate(left):
            ax.text(end, place, f" {_three(end)}", va="center", fontsize=theme.SMALL)
        ax.set_yticks(range(len(own)), [labels[key] for key in own["row"]])
        panels.lines_down(ax, len(own))
        if column.values:
            ax.set_title(column.label)
    axes[-1].set_xlabel("milliseconds of one request")
    entries = {TITLES[name]: Patch(color=SHADES[name]) for name in STATIONS}
    panels.legend(drawn, [], entries)
    panels.note(
        drawn,
        f"Medians of each station over {clocked.sample}; the number is their sum. Methods in the "
        "encoder choose within the vision tower, those in the language model within the prefill.",
    )
    return drawn


def _log_axis(ax: Axes, name: str) -> None:
    ax.set_xscale("log")
    low, high = ax.get_xlim()
    subs = (1, 2, 5) if high / low > 10 else (1, 1.5, 2, 3, 4, 5, 7)
    ax.xaxis.set_major_locator(LogLocator(subs=subs))
    ax.xaxis.set_minor_locator(NullLocator())
    show = count_text if name == "macs" else "{:g}".format
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: show(value)))
