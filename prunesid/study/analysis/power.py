"""The smallest difference that a benchmark can show, and the questions that a difference needs.

    python -m prunesid.study.analysis.power scores.parquet --arm grouping-random --reference default

prints both for each benchmark of a table of per-question scores.
"""

import argparse
from dataclasses import dataclass
from math import ceil, inf, nan, sqrt
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import norm

POWER = 0.8
LEVEL = 0.05


def detectable(
    standard_error: float, images: float = inf, power: float = POWER, level: float = LEVEL
) -> float:
    """The smallest true difference that a two-sided test finds with that power, in its unit.

    The sign-flip test compares a difference d with its spread under random signs, whose variance is
    SE^2 + d^2 / I with I `images`; d is significant from z SE / sqrt(1 - z^2 / I) on. NaN where
    nothing varies, or where no d is significant: p is never below 2^(1 - I).
    """
    reject, find = float(norm.ppf(1 - level / 2)), float(norm.ppf(power))
    share = reject**2 / images
    if not standard_error > 0 or share >= 1 or 2.0 ** (1 - images) > level:
        return nan
    return standard_error * (reject / sqrt(1 - share) + find)


def questions_needed(
    difference: float,
    discordant: float,
    design_effect: float = 1.0,
    power: float = POWER,
    level: float = LEVEL,
) -> int:
    """Questions for a paired `difference` of two 0/1 scores (as a share: 0.02 for 2 points).

    `discordant` is the share of questions that exactly one arm gets right; one question's
    difference has the variance discordant - difference^2. `design_effect` is by how much clustering
    in images inflates the variance. ValueError if the difference is 0 or larger than the discordant
    share.
    """
    if not 0 < abs(difference) <= discordant:
        raise ValueError(
            f"a difference of {difference} is impossible with a discordant share of {discordant}; "
            "it must lie between 0 and that share"
        )
    variance = (discordant - difference**2) * design_effect
    quantiles = float(norm.ppf(1 - level / 2) + norm.ppf(power))
    return max(1, ceil(variance * (quantiles / difference) ** 2))


@dataclass(frozen=True)
class Pairing:
    """Facts of two arms' scores of the same questions, for the size of a study.

    difference     mean score of the arm minus that of the reference, as a share
    discordant     share of questions whose scores differ
    design_effect  variance of the difference with images as clusters over that of independent
    questions
    """

    questions: int
    images: int
    difference: float
    discordant: float
    design_effect: float

    @property
    def standard_error(self) -> float:
        """Standard error of the difference, clustered by image."""
        simple = (self.discordant - self.difference**2) / self.questions
        return sqrt(max(simple, 0.0) * self.design_effect)

    def needed(self, difference: float = 0.02) -> tuple[int, int]:
        """(questions, images) that show a difference of that size with a power of 0.8."""
        discordant = max(self.discordant, difference)
        questions = questions_needed(difference, discordant, self.design_effect)
        return questions, ceil(questions * self.images / self.questions)


def pairing(arm: pd.DataFrame, reference: pd.DataFrame) -> Pairing:
    """The pairing of two arms' score tables (columns question_id, image_id, score in 0/1)."""
    keys = ["question_id", "image_id"]
    both = arm.merge(reference, on=keys, validate="1:1", suffixes=("", "_other"))
    if len(both) != len(arm) or len(both) != len(reference):
        raise ValueError("the two arms did not answer the same questions")
    change = (both["score"] - both["score_other"]).to_numpy(np.float64)
    centered = pd.Series(change - change.mean())
    clustered = float((centered.groupby(both["image_id"]).sum() ** 2).sum())
    simple = float((centered**2).sum())
    return Pairing(
        questions=len(both),
        images=both["image_id"].nunique(),
        difference=float(change.mean()),
        discordant=float((change != 0).mean()),
        design_effect=clustered / simple if simple else nan,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("scores", type=Path, nargs="+", help="parquet files of per-question scores")
    parser.add_argument("--arm", required=True)
    parser.add_argument("--reference", default="default")
    parser.add_argument("--points", type=float, default=2.0, help="difference to show, in points")
    given = parser.parse_args()
    columns = ["benchmark", "arm", "question_id", "image_id", "score"]
    for path in given.scores:
        for benchmark, scores in pd.read_parquet(path, columns=columns).groupby("benchmark"):
            arm, reference = (scores[scores["arm"] == n] for n in (given.arm, given.reference))
            pair = pairing(arm, reference)
            questions, images = pair.needed(given.points / 100)
            print(
                f"{benchmark}: {pair.questions} questions on {pair.images} images, "
                f"difference {100 * pair.difference:+.2f}, "
                f"discordant {100 * pair.discordant:.1f} %, "
                f"design effect {pair.design_effect:.2f}, "
                f"detectable {100 * detectable(pair.standard_error, pair.images):.2f}; "
                f"{given.points:g} points take {questions} questions on {images} images"
            )


if __name__ == "__main__":
    main()
