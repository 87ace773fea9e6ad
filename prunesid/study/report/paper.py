"""The paper's printed numbers and their contradictions, as data to show beside ours."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from prunesid.study.config.ablation import Ablation, Cell
from prunesid.study.config.arm import ALL_TOKENS, Arm, text
from prunesid.study.config.documents import read_yaml

TITLES = {
    "llava-1.5-7b": "LLaVA-1.5-7B",
    "llava-next-7b": "LLaVA-NeXT-7B",
    "mini-gemini-7b": "Mini-Gemini-7B",
    "video-llava-7b": "Video-LLaVA-7B",
}
# {table without a row of all tokens: the table that has this row for the same model}.
VANILLA_TABLE = {"5": "1", "6": "1"}
EVERYTHING = "all"
# The paper's suffix of a method's name; calibrated budgets are ours.
DYNAMIC = {None: "", "benchmark": "-dyn"}
# The paper does not say how MustDrop meets a budget, what a budget of methods inside the language
# model counts, or whether its own text or authors' code was run.
UNSTATED = frozenset({"rule", "budget_counts"})
PRINTED_PRESETS = frozenset({"paper", "release", "upstream"})


@dataclass(frozen=True)
class Note:
    """Something to know of the numbers of some tables, or of some methods' rows there."""

    tables: frozenset[int]
    methods: frozenset[str]
    text: str


@dataclass(frozen=True)
class Paper:
    """`cells`: a printed number by (table, method, setting, tokens, benchmark), all as text.

    models  title of the model of each table
    """

    cells: Mapping[tuple[str, str, str, str, str], float]
    notes: tuple[Note, ...]
    models: Mapping[str, str]

    def notes_on(self, ablation: Ablation) -> tuple[str, ...]:
        """The paper's contradictions in what stands beside the ablation's rows."""
        shown = {_name_of(arm) for arm in ablation.arms}
        return tuple(
            note.text
            for note in self.notes
            if ablation.table.paper_table in note.tables
            and (not note.methods or note.methods & shown)
        )

    def printed(
        self, ablation: Ablation, cell: Cell, benchmark: str, whole: bool = False
    ) -> float | None:
        """The number that the ablation's table of the paper prints for a cell, or None.

        `whole` asks for the row's average over all budgets instead of the cell's own budget. The
        printed row must be of the cell's method, and state every parameter in which its arm differs
        from the default. It need not state parameters that all arms of the ablation share,
        `UNSTATED` ones, or a preset of `PRINTED_PRESETS`. So one printed row stands beside every
        arm that it may describe.
        """
        arm = cell.arms[0]
        printed = _name_of(arm)
        if printed is None:
            return None
        resolved = {name: text(value) for name, value in arm.resolved().items()}
        differs = set(arm.params) - {name for name, _ in ablation.base} - UNSTATED
        if arm.params.get("preset") in PRINTED_PRESETS:
            differs.discard("preset")
        tokens = EVERYTHING if whole else str(arm.budget)
        for (table, method, setting, kept, column), value in self.cells.items():
            place = (str(ablation.table.paper_table), printed, tokens, benchmark)
            if (table, method, kept, column) != place:
                continue
            stated = dict(part.split("=", 1) for part in setting.split(";") if part)
            if differs <= stated.keys() and stated.items() <= resolved.items():
                return value
        return None

    def budgets(self, ablation: Ablation) -> list[int]:
        """The budgets of the ablation's table of the paper, the smallest first."""
        table = str(ablation.table.paper_table)
        kept = {key[3] for key in self.cells if key[0] == table and key[1] != ALL_TOKENS}
        return sorted(int(tokens) for tokens in kept if tokens != EVERYTHING)

    def model_of(self, ablation: Ablation) -> str:
        """Title of the model whose numbers the ablation's table of the paper has."""
        return self.models[str(ablation.table.paper_table)]

    def vanilla_table(self, ablation: Ablation) -> str:
        """The table that prints the same model with all its visual tokens."""
        table = str(ablation.table.paper_table)
        return VANILLA_TABLE.get(table, table)

    def all_tokens(self, ablation: Ablation, benchmark: str) -> float | None:
        """The number that `vanilla_table` prints for all tokens, or None."""
        return next((v for key, v in self._vanilla(ablation) if key[-1] == benchmark), None)

    def token_count(self, ablation: Ablation) -> str:
        """The number of all tokens there, '' where none is printed."""
        return next((tokens for (*_, tokens, _), _ in self._vanilla(ablation)), "")

    def _vanilla(self, ablation: Ablation) -> list[tuple[tuple[str, str, str, str, str], float]]:
        place = (self.vanilla_table(ablation), ALL_TOKENS)
        return [(key, value) for key, value in self.cells.items() if key[:2] == place]


def _name_of(arm: Arm) -> str | None:
    """The paper's name of an arm's method, or None for one that it does not have."""
    return arm.method + DYNAMIC[arm.dynamic] if arm.dynamic in DYNAMIC else None


def load_paper(folder: Path) -> Paper:
    """The numbers of `folder`/results.csv and `folder`/notes.yaml."""
    table = pd.read_csv(folder / "results.csv", dtype=str, keep_default_na=False)
    keys = table[["table", "method", "setting", "tokens", "benchmark"]].itertuples(index=False)
    cells = {tuple(key): float(value) for key, value in zip(keys, table["value"], strict=True)}
    notes = tuple(
        Note(frozenset(n["tables"]), frozenset(n.get("methods", ())), n["text"])
        for n in read_yaml(folder / "notes.yaml")
    )
    models = {t: TITLES[m] for t, m in zip(table["table"], table["model"], strict=True)}
    return Paper(cells, notes, models)
