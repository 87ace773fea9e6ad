"""Benchmark metrics as functions of sums over images.

A metric that depends on the questions only through sums over images can be recomputed for every
bootstrap resample by one matrix product, weights (B, I) @ sums (I, S), instead of scoring again.
On the full sample each statistic equals lmms-eval's own aggregation.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from prunesid.core.registry import unknown

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Statistic:
    """`contributions` gives each question's part (Q, S) of the sums; `value` maps sums to (...).

    `scale` turns the value into the unit that tables show: 100 for shares, 1 for points.
    """

    name: str
    label: str
    unit: str
    scale: float
    contributions: Callable[[pd.DataFrame], Floats]
    value: Callable[[Floats], Floats]


def _ratio(over: Floats, under: Floats) -> Floats:
    """over / under, NaN where nothing was counted."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(under > 0, over / under, np.nan))


def _mean_contributions(scores: pd.DataFrame) -> Floats:
    return _weighted_contributions(scores.assign(weight=1.0))


def _mean_value(sums: Floats) -> Floats:
    return _ratio(sums[..., 0], sums[..., 1])


def _weighted_contributions(scores: pd.DataFrame) -> Floats:
    weight = scores["weight"].to_numpy(np.float64)
    return np.stack([weight * scores["score"].to_numpy(np.float64), weight], axis=1)


def _f1_contributions(scores: pd.DataFrame) -> Floats:
    said = scores["answer"].str.lower().str.strip()
    said_yes, said_no = (said == "yes").to_numpy(), (said == "no").to_numpy()
    is_yes = (scores["target"].str.lower().str.strip() == "yes").to_numpy()
    parts = [said_yes & is_yes, said_yes & ~is_yes, said_no & is_yes]
    return np.stack(parts, axis=1).astype(np.float64)


def _f1_value(sums: Floats) -> Floats:
    hit, false_alarm, miss = sums[..., 0], sums[..., 1], sums[..., 2]
    # 2PR / (P + R) = 2 TP / (2 TP + FP + FN); without a hit lmms-eval says 0.
    return np.where(hit > 0, 2 * hit / np.maximum(2 * hit + false_alarm + miss, 1), 0.0)


def _mme_contributions(scores: pd.DataFrame) -> Floats:
    """Per category: correct answers, pairs with both right, pairs; S = 3 categories.

    A pair is two successive questions of one image and category; it counts at the second one.
    """
    groups = scores.groupby(["category", "image_id"], sort=False)
    sizes = groups["score"].transform("size").to_numpy()
    if (sizes % 2).any():
        odd = scores.loc[sizes % 2 == 1].iloc[0]
        raise ValueError(
            f"MME's questions come in pairs; image {odd['image_id']} has an odd number of them "
            f"in category {odd['category']}"
        )
    score = scores["score"].to_numpy(np.float64)
    before = groups["score"].shift(1).to_numpy(np.float64)
    closes = groups.cumcount().to_numpy() % 2 == 1
    right = np.where(closes, score + np.nan_to_num(before), 0.0)
    names, code = np.unique(scores["category"].to_numpy(str), return_inverse=True)
    sums = np.zeros((len(scores), len(names), 3))
    sums[np.arange(len(scores)), code] = np.stack([right, right == 2, closes], axis=1)
    return sums.reshape(len(scores), -1)


def _mme_value(sums: Floats) -> Floats:
    by_category = sums.reshape(*sums.shape[:-1], -1, 3)
    right, both, pairs = by_category[..., 0], by_category[..., 1], by_category[..., 2]
    return np.asarray((100 * _ratio(right, 2 * pairs) + 100 * _ratio(both, pairs)).sum(axis=-1))


STATISTICS = {
    s.name: s
    for s in (
        Statistic("mean", "accuracy", "%", 100.0, _mean_contributions, _mean_value),
        Statistic("weighted", "relative mark", "%", 100.0, _weighted_contributions, _mean_value),
        Statistic("f1", "F1", "%", 100.0, _f1_contributions, _f1_value),
        Statistic("mme", "score", "points", 1.0, _mme_contributions, _mme_value),
    )
}


def statistic(name: str) -> Statistic:
    """The statistic of that name; ValueError names the choices."""
    if name not in STATISTICS:
        raise ValueError(unknown("statistic", name, STATISTICS))
    return STATISTICS[name]


def digits(unit: str) -> int:
    """Decimals shown of a value: none for points, one for percentages."""
    return 0 if unit == "points" else 1


def image_sums(
    scores: pd.DataFrame, chosen: Statistic, image: NDArray[np.int64], images: int
) -> Floats:
    """Sums (I, S) of one arm's Q questions over images; `image` (Q,) numbers each one's image."""
    parts = chosen.contributions(scores)
    sums = np.zeros((images, parts.shape[1]))
    np.add.at(sums, image, parts)
    return sums
