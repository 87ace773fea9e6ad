"""An arm's share of right answers by question family and by information score.

One line per row x column x benchmark x stratum:

    kind, stratum         'family' and the benchmark's own category, or 'phi' and the third of the
                          images ('low', 'middle', 'high') by their information score
    questions, images     how many
    whole, value          percent with all tokens, and of the row's arms (mean of seeds)
    diff                  value minus whole; diff_low, diff_high its interval over images
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from prunesid.study.analysis.comparison import ALL
from prunesid.study.analysis.statistics import interval, resamples
from prunesid.study.config.ablation import Ablation
from prunesid.study.config.arm import ALL_TOKENS
from prunesid.study.config.study import Benchmark, Bootstrap

FAMILY, PHI = "family", "phi"
THIRDS = ("low", "middle", "high")
WORDS = ("row", "column", "benchmark", "kind", "stratum")
NUMBERS = ("questions", "images", "whole", "value", "diff", "diff_low", "diff_high")


def by_stratum(
    scores: pd.DataFrame,
    ablation: Ablation,
    benchmarks: Sequence[Benchmark],
    information: pd.DataFrame,
    bootstrap: Bootstrap,
) -> pd.DataFrame:
    """The table that the head of this module describes.

    scores       as `measurement.read_scores` gives it
    information  benchmark, image_id and phi of every image
    """
    lines: list[dict[str, Any]] = []
    for name in (benchmark.name for benchmark in benchmarks):
        own, phi = (table[table["benchmark"] == name] for table in (scores, information))
        lines += _lines(own, ablation, name, phi, bootstrap)
    return pd.DataFrame(lines, columns=[*WORDS, *NUMBERS])


def read_strata(path: Path) -> pd.DataFrame:
    """A table that `comparison.write_csv` wrote."""
    return pd.read_csv(path, dtype=dict.fromkeys(WORDS, str), keep_default_na=False)


def _lines(
    scores: pd.DataFrame, ablation: Ablation, name: str, phi: pd.DataFrame, bootstrap: Bootstrap
) -> Iterator[dict[str, Any]]:
    wide = scores.pivot(index="question_id", columns="arm", values="score")
    about = scores[scores["arm"] == ALL_TOKENS].set_index("question_id").loc[wide.index]
    image, names = pd.factorize(about["image_id"], sort=True)
    draws = np.concatenate(list(resamples(len(names), bootstrap.resamples, bootstrap.seed, name)))
    third = _thirds(phi.set_index("image_id")["phi"].reindex(names))
    members = {(FAMILY, str(c)): (about["category"] == c).to_numpy() for c in _families(about)}
    members |= {(PHI, t): (third == t)[image] for t in THIRDS if (third == t).any()}
    whole = wide[ALL_TOKENS].to_numpy(np.float64)
    for cell in ablation.cells:
        own = wide[[arm.name for arm in cell.arms]].to_numpy(np.float64).mean(axis=1)
        place = {"row": cell.row.key, "column": cell.column.key or ALL, "benchmark": name}
        for (kind, stratum), chosen in members.items():
            sums = np.bincount(image, (own - whole) * chosen, len(names))
            counts = np.bincount(image, chosen, len(names))
            with np.errstate(divide="ignore", invalid="ignore"):
                drawn = 100 * (draws @ sums) / (draws @ counts)
            low, high = interval(drawn, bootstrap.confidence)
            sizes = {"questions": int(chosen.sum()), "images": int((counts > 0).sum())}
            shares = {"whole": whole, "value": own, "diff": own - whole}
            means = {what: 100 * share[chosen].mean() for what, share in shares.items()}
            where = place | {"kind": kind, "stratum": stratum}
            yield where | sizes | means | {"diff_low": low, "diff_high": high}


def _families(about: pd.DataFrame) -> list[str]:
    """The categories in the order of their names; none where there is but one."""
    found = sorted(set(about["category"].dropna()) - {""})
    return found if len(found) > 1 else []


def _thirds(phi: pd.Series) -> np.ndarray:
    """'low', 'middle' or 'high' for each image; '' where phi is unknown. Ties stay together."""
    rank = phi.rank(method="average").to_numpy(np.float64)
    share = (np.nan_to_num(rank, nan=1.0) - 0.5) / max(1, phi.notna().sum())
    return np.where(np.isnan(rank), "", np.array(THIRDS)[(share * len(THIRDS)).astype(int)])
