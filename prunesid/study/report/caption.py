"""The caption of a table of numbers: definition, intervals, tests, cautions."""

from collections.abc import Sequence

from prunesid.study.analysis.comparison import ALL, AVERAGE
from prunesid.study.analysis.metrics import digits, statistic
from prunesid.study.config.ablation import Ablation, Setting
from prunesid.study.config.arm import ALL_TOKENS, Arm
from prunesid.study.report.figures import Subject
from prunesid.study.report.paper import Paper

# The meaning of the columns of the table of facts, by their titles.
FACTS = {
    "Acts": "where the method drops tokens: in the vision encoder, early (before the language "
    "model, by the image or by image and question) or late (inside it, by what is asked; its "
    "tokens are the mean over layers)",
    "Tokens": "visual tokens per image in a layer of the language model, and their range",
    "Entering": "those in its first layer",
    "KV entries": "visual tokens in the caches of all layers together when decoding starts",
    "τ": "threshold of the suppression; at 1 nothing is suppressed",
    "Suppressed": "share of all tokens",
    "Refilled": "kept although suppressed, to fill the budget",
    "ρ": "redundancy",
    "Rand, seeds": "adjusted Rand index of the groups of two seeds, 1 where they are the same, 0 "
    "for unrelated ones",
    "Rand, reference": "the same index, of the groups and the reference's",
    "Encoder": "multiply-adds of the vision tower for an image, by a counted formula as those that "
    "follow",
    "Selection": "of choosing its tokens, for each question where they depend on it, empty where "
    "the method has no formula",
    "LLM": "of the prompt of a question asked alone, up to the answer's first token",
    "Total": "their sum, after ≥ where a part has no formula",
}
# The test of every p that is shown.
TEST = (
    "The test swaps the answers of the two rows, image by image, in all possible ways (sign-flip "
    "test): questions on one image are not taken for independent. Its p is computed and not drawn: "
    "it has no Monte-Carlo error, and no † depends on a seed."
)


def paragraphs(subject: Subject, paper: Paper | None, facts: Sequence[str] = ()) -> tuple[str, ...]:
    """The caption of an ablation's table, a paragraph per subject.

    `facts` are the columns of a second table.
    """
    ablation = subject.ablation
    found = [
        ablation.description,
        definition(subject),
        _average(ablation),
        _tests(subject),
        _detectable(subject),
        # The meaning of a dash.
        "–: left out of this ablation."
        if len(ablation.cells) < len(ablation.rows) * len(ablation.columns)
        else "",
        _tokens(subject),
        counts(ablation),
        f"What the arms did (second table), {facts_text(facts)}" if facts else "",
    ]
    if paper is not None and ablation.table.paper_table is not None:
        found += [_paper(ablation, paper), _doubts(paper.notes_on(ablation))]
    return tuple(text for text in found if text)


def facts_text(columns: Sequence[str]) -> str:
    """The meanings of the columns of a table of facts."""
    meanings = " ".join(f"{title}: {FACTS[title]}." for title in columns)
    return f"means over benchmarks, images and seeds. {meanings}"


def definition(subject: Subject) -> str:
    """The definition of the values, their intervals and spreads."""
    comparison = subject.comparison
    whole = comparison[comparison["row"] == ALL_TOKENS].set_index("benchmark")
    parts = []
    for b in subject.benchmarks:
        chosen = statistic(b.statistic)
        questions, images = whole.loc[b.name, ["questions", "images"]].astype(int)
        left = f" ({subject.left_out[b.name]})" if b.name in subject.left_out else ""
        parts.append(
            f"{b.title}: {chosen.label} ({chosen.unit}), {questions:,} questions on {images:,} "
            f"images{left}"
        )
    seeds = int(comparison["seeds"].max())
    runs = (
        f" Where chance plays a part, the value is the mean over {seeds} seeds and ± their "
        "standard deviation; the interval is about images, for these seeds."
        if seeds > 1
        else ""
    )
    return (
        f"{'; '.join(parts)}. Small print: {subject.confidence} interval from "
        f"{subject.bootstrap.resamples:,} bootstrap resamples of whole images, the same for every "
        f"row.{runs}"
    )


def _average(ablation: Ablation) -> str:
    over = "benchmarks and columns" if len(ablation.columns) > 1 else "benchmarks"
    over = "the column's benchmarks" if ablation.table.average == "column" else over
    return f"Avg.: mean over {over} of the value as a percentage of the value with all tokens."


def _tests(subject: Subject) -> str:
    count = int(subject.comparison["p"].notna().sum())
    if not count:
        return ""
    reference = subject.ablation.reference.label
    return (
        f"Bold: the highest of the compared rows. †: differs from {reference} in the same column, "
        f"p < 0.05 after Holm's correction over the {count} tests of this ablation. {TEST}"
    )


def _detectable(subject: Subject) -> str:
    largest = subject.comparison.groupby("benchmark")["detectable"].max().dropna()
    places = {b.name: digits(statistic(b.statistic).unit) for b in subject.benchmarks}
    parts = [
        f"{title} {largest[name]:.{places.get(name, 1)}f}"
        for name, title in (subject.titles | {AVERAGE: "Avg."}).items()
        if name in largest
    ]
    if not parts:
        return ""
    return (
        f"Smallest detectable difference from {subject.ablation.reference.label} (power 80 %, one "
        f"test at 5 %, the largest over rows and columns): {', '.join(parts)}."
    )


def _tokens(subject: Subject) -> str:
    """The cells that sent another number of tokens to the language model than their budget."""
    unequal = []
    lines = subject.comparison
    for cell in subject.ablation.cells:
        own = lines[(lines["row"] == cell.row.key) & (lines["column"] == (cell.column.key or ALL))]
        low, high = own["tokens_min"].min(), own["tokens_max"].max()
        budget = cell.arms[0].budget
        if budget is not None and not low == high == budget:
            average = own.loc[own["benchmark"] == AVERAGE, "tokens_mean"].mean()
            place = ", ".join(filter(None, (cell.row.label, cell.column.label)))
            span = "" if low == high else f" ({low:g}–{high:g})"
            unequal.append(f"{place}: {average:.1f}{span}")
    if not unequal:
        return "Every image sent exactly its budget of visual tokens to the language model."
    late = any(arm.is_late for arm in subject.ablation.arms)
    layers = ", mean over the language model's layers," if late else ","
    return (
        f"Visual tokens per image{layers} mean (range), where not the budget: {'; '.join(unequal)}."
    )


def counts(ablation: Ablation) -> str:
    """The budget's meaning for methods whose authors count otherwise; '' without such methods."""
    rows: dict[object, list[str]] = {}
    for row, arm in first_arms(ablation).items():
        rows.setdefault(arm.resolved().get("budget_counts"), []).append(row.label)
    said = {
        "mean": "a budget is the mean, over all layers, of the tokens that enter a layer. In their "
        "authors' papers, and in the paper's rows, it is the number that enters each layer after "
        "the first K; those K see all tokens and do not count. Of the same budget fewer tokens are "
        "left here (budget_counts: after counts as they do).",
        "after": "a budget is the number of tokens that enters each layer after the first K, as in "
        "their authors' papers and in the paper's rows; those K see all tokens, so that the mean "
        "over layers is larger.",
    }
    return " ".join(
        f"{', '.join(rows[kind])}: {text}" for kind, text in said.items() if kind in rows
    )


def first_arms(ablation: Ablation) -> dict[Setting, Arm]:
    """The first arm of every row, in the order of the rows."""
    found = {cell.row: cell.arms[0] for cell in reversed(ablation.cells)}
    return {row: found[row] for row in ablation.rows}


def _paper(ablation: Ablation, paper: Paper) -> str:
    if str(ablation.table.paper_table) not in paper.models:
        return ""
    return (
        f"The shaded rows repeat table {ablation.table.paper_table} of the paper (all tokens: "
        f"table {paper.vanilla_table(ablation)}): {paper.model_of(ablation)} on the benchmarks of "
        "those names. Where model, splits or scoring differ from ours, compare the order of rows "
        "and not the numbers. The differences between its rows are ours, of the printed numbers."
    )


def _doubts(notes: Sequence[str]) -> str:
    return f"On the paper's numbers: {' '.join(notes)}" if notes else ""
