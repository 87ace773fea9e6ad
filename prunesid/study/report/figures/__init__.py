"""Kinds of figures: one file per kind, chosen by an ablation's YAML (`figure: {kind: forest}`).

A kind is named like its file and registers two functions: `points(subject)` gives the numbers
of the figure, which is saved as CSV, and `draw(points, subject)` shows that table and nothing else.
Plug-ins use the entry-point group `prunesid.figures`, the kind's name as their name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from prunesid.core.registry import Registry
from prunesid.study.analysis.comparison import LEFT
from prunesid.study.analysis.measurement import left_out_text
from prunesid.study.config.ablation import FIGURE
from prunesid.study.config.arm import ALL_TOKENS
from prunesid.study.config.study import Bootstrap, shown_by
from prunesid.study.report import theme

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from prunesid.study.config.ablation import Ablation
    from prunesid.study.config.study import Benchmark


NEEDED = {
    "information": "the information scores of the benchmarks",
    "pairs": "the comparison of every pair",
    "strata": "the scores by stratum",
    "facts": "what the arms cost",
}


@dataclass(frozen=True)
class Subject:
    """All that a figure or page may show.

    comparison   the ablation's table as `comparison.compare` gives it
    bootstrap    how its intervals were made
    information  benchmark, image_id, rho, phi of every image of the study, or None without them
    pairs        every row against every other, as `pairs.compare_pairs` gives it, or None
    strata       where rows lose, as `strata.by_stratum` gives it, or None
    facts        what each arm did and cost, as `arm_facts.read_facts` reads arms.csv, or None
    """

    comparison: pd.DataFrame
    ablation: Ablation
    benchmarks: Sequence[Benchmark]
    bootstrap: Bootstrap = Bootstrap()  # noqa: RUF009 (frozen)
    information: pd.DataFrame | None = None
    pairs: pd.DataFrame | None = None
    strata: pd.DataFrame | None = None
    facts: pd.DataFrame | None = None

    def needed(self, table: str) -> pd.DataFrame:
        """One of the tables that may be None. ValueError where it is."""
        found: pd.DataFrame | None = getattr(self, table)
        if found is None:
            raise ValueError(f"{self.ablation.name}: this figure or page needs {NEEDED[table]}")
        return found

    @property
    def titles(self) -> dict[str, str]:
        """The titles of the benchmarks, by name."""
        return {b.name: b.title for b in self.benchmarks}

    @property
    def confidence(self) -> str:
        """The confidence of the intervals: '95 %'."""
        return f"{100 * self.bootstrap.confidence:g} %"

    @property
    def sample(self) -> str:
        """The questions that every row answered: 'GQA, SQA (2,023 questions on 440 images)'."""
        shown = shown_by(self.benchmarks)
        lines = self.comparison
        asked = lines[(lines["row"] == ALL_TOKENS) & lines["benchmark"].isin(list(self.titles))]
        questions, images = (int(asked[name].sum()) for name in ("questions", "images"))
        titles = ", ".join(self.titles.values())
        left = ", ".join(f"{self.titles[name]}: {text}" for name, text in self.left_out.items())
        return f"{titles} ({questions:,} questions on {images:,} {shown}{left and f'; {left}'})"

    @property
    def left_out(self) -> dict[str, str]:
        """What is not among them, for benchmarks of which some images cannot be read."""
        lines = self.comparison
        if LEFT[0] not in lines:
            return {}
        own = lines[lines["row"] == ALL_TOKENS].set_index("benchmark")
        counts = {name: own.loc[name, list(LEFT)].astype(int) for name in self.titles}
        return {
            name: left_out_text(questions, images)
            for name, (questions, images) in counts.items()
            if images
        }


@dataclass(frozen=True)
class FigureKind:
    """A registered kind of figure."""

    points: Callable[[Subject], pd.DataFrame]
    draw: Callable[[pd.DataFrame, Subject], Figure]


FIGURES: Registry[FigureKind] = Registry("figure kind", __name__, group="prunesid.figures")


def register(
    name: str,
    *,
    points: Callable[[Subject], pd.DataFrame],
    draw: Callable[[pd.DataFrame, Subject], Figure],
) -> None:
    """Register a kind of figure; ValueError if the name is taken."""
    FIGURES.register(name)(FigureKind(points, draw))


def write_figure(subject: Subject, paths: Sequence[Path], picture: str = FIGURE) -> None:
    """Write a figure of the ablation to every path by its suffix; .csv gets its points.

    `picture` is one of `subject.ablation.figure.kinds`.
    """
    kind = FIGURES[subject.ablation.figure.kinds[picture]]
    points = kind.points(subject)
    theme.write(kind.draw(points, subject), points, paths)
