"""Arms measured on one benchmark: their questions lined up, their metric in every resample."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from prunesid.core.questions import LEFT_OUT
from prunesid.study.analysis.metrics import Floats, Statistic, image_sums, statistic
from prunesid.study.analysis.sign_flip import contributions
from prunesid.study.analysis.statistics import replicates
from prunesid.study.config.study import Benchmark, Bootstrap

SCORE_COLUMNS = (
    "benchmark", "arm", "question_id", "image_id", "category", "answer", "target", "score",
    "weight", "tokens",
)  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """A arms, B resamples, Q questions, I images, every arm's questions in the same order.

    values (A,) and replicates (A, B) are in the statistic's unit, sums (A, I, S) are what it is
    computed from. scores are (A, Q); tokens (A, I) are the mean visual tokens of each image in the
    language model.
    """

    benchmark: Benchmark
    statistic: Statistic
    arms: tuple[str, ...]
    values: Floats
    replicates: Floats
    sums: Floats
    scores: Floats
    tokens: Floats

    def at(self, arms: Sequence[str]) -> list[int]:
        """The rows of these arms."""
        return [self.arms.index(name) for name in arms]

    def contributions(self, own: Sequence[str], other: Sequence[str]) -> Floats:
        """The part (I,) of each image in the difference of two means over arms (seeds)."""
        pairs = itertools.product(self.at(own), self.at(other))
        parts = [contributions(self.sums[a], self.sums[b], self.statistic) for a, b in pairs]
        return np.asarray(np.mean(parts, axis=0))

    @cached_property
    def binary(self) -> bool:
        """Whether every question's score is 0 or 1."""
        return bool(np.isin(self.scores, (0.0, 1.0)).all())


def read_scores(paths: Iterable[Path]) -> pd.DataFrame:
    """The per-question tables of several benchmarks as one, with `SCORE_COLUMNS`.

    Where images cannot be read, its attribute LEFT_OUT is {benchmark: [questions, images]}.
    """
    return concat_scores(pd.read_parquet(path, columns=list(SCORE_COLUMNS)) for path in paths)


def concat_scores(parts: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """The tables of several benchmarks as one, with its attribute LEFT_OUT as `read_scores` has."""
    tables = list(parts)
    left_out = {
        str(own["benchmark"].iloc[0]): own.attrs[LEFT_OUT]
        for own in tables
        if LEFT_OUT in own.attrs
    }
    # Tables whose attributes differ become one without any.
    found = pd.concat(tables, ignore_index=True)
    found.attrs = {LEFT_OUT: left_out} if left_out else {}
    return found


def left_out_text(questions: int, images: int) -> str:
    """The words for what is left out, to follow 'N questions on M images'."""
    return f"{questions:,} more on {images:,} that cannot be read are left out"


def measure(
    scores: pd.DataFrame, benchmark: Benchmark, arms: Sequence[str], bootstrap: Bootstrap
) -> Measured:
    """The named arms on one benchmark; `scores` has `SCORE_COLUMNS`, a line per arm and question.

    ValueError if an arm is missing, answered a question twice, or answered other questions than
    the first arm.
    """
    chosen = statistic(benchmark.statistic)
    table = scores[(scores["benchmark"] == benchmark.name) & scores["arm"].isin(arms)]
    by_arm = {str(name): own for name, own in table.groupby("arm", sort=False)}
    missing = [name for name in arms if name not in by_arm]
    if missing:
        raise ValueError(f"{benchmark.name}: there are no scores of {', '.join(missing)}")
    first = by_arm[arms[0]]
    order = pd.Index(first["question_id"])
    aligned = []
    for name in arms:
        asked = pd.Index(by_arm[name]["question_id"])
        if not asked.is_unique:
            again = asked[asked.duplicated()][0]
            raise ValueError(f"{benchmark.name}: {name} answered question {again} twice")
        place = asked.get_indexer(order)
        if len(asked) != len(order) or (place < 0).any():
            raise ValueError(f"{benchmark.name}: {name} answered other questions than {arms[0]}")
        aligned.append(by_arm[name].iloc[place])
    image, names = pd.factorize(first["image_id"], sort=True)
    sums = np.stack([image_sums(own, chosen, image, len(names)) for own in aligned])
    drawn = replicates(sums, chosen, bootstrap.resamples, bootstrap.seed, benchmark.name)
    tokens = [own.groupby(image)["tokens"].mean().to_numpy(np.float64) for own in aligned]
    return Measured(
        benchmark=benchmark,
        statistic=chosen,
        arms=tuple(arms),
        values=chosen.scale * chosen.value(sums.sum(axis=1)),
        replicates=chosen.scale * drawn,
        sums=sums,
        scores=np.stack([own["score"].to_numpy(np.float64) for own in aligned]),
        tokens=np.stack(tokens),
    )
