"""Time and space of a study's stages by rates, shipped or measured.

The shipped rates are for Pocket-LLaVA on one core of an AMD EPYC with AVX-512 (torch 2.13), fitted
to what the default study's stored results took; those of jobs, images and compare, and all sizes,
are rough guesses. A machine that has finished part of a study has its own: each stage's rates are
then scaled by how much longer or shorter the finished part took than the shipped rates say.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

# Seconds by what they are spent on: starting a job, and then images, or images, tokens or questions
# of every arm. Answering pays for the visual tokens that are prefilled and for the questions that
# are asked on them; on a GPU also for passes of the model (prunesid.study.planning.hardware).
SHIPPED: Mapping[str, Mapping[str, float]] = {
    "images": {"jobs": 3, "images": 0.02},
    "features": {"jobs": 8, "images": 0.1},
    "questions": {"jobs": 8, "questions": 0.0003},
    "information": {"jobs": 2},
    "encode": {"jobs": 8, "images": 0.022},
    "select": {"jobs": 5, "images": 0.0094},
    "answer": {"jobs": 8, "tokens": 1.0e-4, "questions": 0.00075},
    "score": {"jobs": 14, "questions": 0.00017},
    "compare": {"jobs": 4, "arms": 0.35},
    "measure": {"jobs": 8, "requests": 0.1},
}
STAGES = tuple(SHIPPED)
# Bytes in the store, by the same measures; those of features are counted by their shape.
BYTES: Mapping[str, Mapping[str, float]] = {
    "images": {"images": 50_000},
    "select": {"tokens": 8, "images": 100},
    "answer": {"questions": 20},
    "score": {"questions": 20},
}
OF_ANY_STAGE = {"entries": 8_000, "feature_bytes": 1}


@dataclass(frozen=True)
class Work:
    """Work of one stage: `amount` in the stage's measures.

    Any stage may have `entries`, the results that it stores, and `feature_bytes`, the bytes of
    features among these.
    """

    stage: str
    amount: Mapping[str, float]

    @property
    def bytes(self) -> float:
        """Bytes that it leaves on disk."""
        return _priced(self, {**BYTES.get(self.stage, {}), **OF_ANY_STAGE})


@dataclass(frozen=True)
class Rates:
    """`factors` scales the rates of the stages that were measured; a missing one is 1."""

    factors: Mapping[str, float] = field(default_factory=dict)
    rates: Mapping[str, Mapping[str, float]] = field(default_factory=lambda: SHIPPED)

    def seconds(self, work: Work) -> float:
        """How long the work takes one process."""
        return self.factors.get(work.stage, 1.0) * _priced(work, self.rates[work.stage])

    def is_measured(self, stage: str) -> bool:
        return stage in self.factors


def measured(
    finished: Iterable[tuple[Work, float]], rates: Mapping[str, Mapping[str, float]] = SHIPPED
) -> Rates:
    """Rates that give the finished work, stage by stage, the seconds that it took.

    A stage of which nothing is finished keeps `rates`.
    """
    took: defaultdict[str, float] = defaultdict(float)
    expected: defaultdict[str, float] = defaultdict(float)
    for work, seconds in finished:
        took[work.stage] += seconds
        expected[work.stage] += _priced(work, rates[work.stage])
    return Rates({s: took[s] / expected[s] for s in took if expected[s] > 0}, rates)


def wall_seconds(chains: Iterable[float], cores: int) -> float:
    """The least time that jobs of these lengths take on so many cores."""
    lengths = list(chains)
    return max(sum(lengths) / cores, *lengths) if lengths else 0.0


def _priced(work: Work, prices: Mapping[str, float]) -> float:
    return sum(prices.get(what, 0.0) * count for what, count in work.amount.items())
