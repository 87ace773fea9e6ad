"""The result tables of a made-up study, as the workflow lays them out."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from builders.synthetic_scores import BENCHMARKS, grouping, scores_of
from prunesid.study.analysis.comparison import compare, write_csv
from prunesid.study.config.ablation import Ablation
from prunesid.study.config.study import Bootstrap


def write_results(
    folder: Path, ablations: Sequence[Ablation] | None = None, images: int = 40
) -> pd.DataFrame:
    """Scores, comparisons and information scores below `folder`; the scores are returned."""
    chosen = ablations or [grouping()]
    arms = tuple({arm.name: arm for ablation in chosen for arm in ablation.arms}.values())
    scores = scores_of(arms, images=images)
    for name, own in scores.groupby("benchmark"):
        (folder / str(name)).mkdir(parents=True)
        own.to_parquet(folder / str(name) / "scores.parquet", index=False)
    for ablation in chosen:
        table = compare(scores, ablation, BENCHMARKS, Bootstrap(resamples=200))
        write_csv(table, folder / "ablations" / ablation.name / "comparison.csv")
    phi = np.linspace(0.4, 0.6, images)
    tables = [
        pd.DataFrame({"benchmark": b.name, "image_id": [f"img{i}" for i in range(images)],
                      "rho": 1 - phi, "phi": phi})
        for b in BENCHMARKS
    ]  # fmt: skip
    pd.concat(tables, ignore_index=True).to_parquet(folder / "information.parquet", index=False)
    return scores
