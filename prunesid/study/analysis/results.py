"""The result tables of a finished study, and functions that answer a reader's first questions.

    results = read_results(Path("results/pocket"))
    by_budget(results)                            which arm at which budget
    disagreements(results, "vanilla", "default")  where two arms disagree
    losses(results, "default")                    what is lost, image by image, beside phi

The notebook in notebooks/ asks them in this order.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from prunesid.core.questions import LEFT_OUT
from prunesid.core.registry import unknown
from prunesid.study.analysis.comparison import AVERAGE, OVERALL, read_comparison
from prunesid.study.analysis.measurement import left_out_text, read_scores
from prunesid.study.config.arm import ALL_TOKENS
from prunesid.study.layout import Layout

RESAMPLES = 2000


@dataclass(frozen=True)
class Results:
    """`scores` per arm and question, `comparisons` of all ablations, `information` per image."""

    scores: pd.DataFrame
    comparisons: pd.DataFrame
    information: pd.DataFrame

    @property
    def arms(self) -> list[str]:
        return list(self.scores["arm"].unique())

    @property
    def left_out(self) -> str:
        """The remark on left-out questions, to follow their number in a text; '' without any."""
        counts = self.scores.attrs.get(LEFT_OUT, {}).values()
        questions, images = (sum(own[place] for own in counts) for place in (0, 1))
        return f" ({left_out_text(questions, images)})" if images else ""

    @property
    def benchmarks(self) -> list[str]:
        return list(self.scores["benchmark"].unique())


def read_results(
    folder: Path, benchmarks: Sequence[str] | None = None, ablations: Sequence[str] | None = None
) -> Results:
    """The tables below `folder`, the model's folder in `results`; None takes what is there.

    FileNotFoundError where the study has not been run.
    """
    places = Layout(folder.parent, folder)
    names = benchmarks or _named(folder, places.scores("*"))
    studies = ablations or _named(folder, places.comparison("*"))
    if not names or not studies:
        raise FileNotFoundError(f"there are no results in {folder}; `make reproduce` computes them")
    compared = [read_comparison(places.comparison(name)).assign(ablation=name) for name in studies]
    information = pd.read_parquet(places.information)
    return Results(
        scores=read_scores(places.scores(name) for name in names),
        comparisons=pd.concat(compared, ignore_index=True),
        information=information[information["benchmark"].isin(names)],
    )


def _named(folder: Path, pattern: Path) -> list[str]:
    """Names of the folders with a file that matches `pattern`, which begins with `folder`."""
    return sorted(path.parent.name for path in folder.glob(str(pattern.relative_to(folder))))


def by_budget(results: Results) -> pd.DataFrame:
    """Every arm once, by budget and from best to worst: the average over benchmarks.

    `value` is in percent of the all-token arm's, with its interval; `tokens` the mean that reached
    the language model. Ablations on fewer benchmarks than others have another average and are left
    out.
    """
    table = results.comparisons
    asked = table.groupby("ablation")["benchmark"].agg(set)
    most = max(asked, key=len)
    whole = [name for name, benchmarks in asked.items() if benchmarks == most]
    lines = table[table["ablation"].isin(whole) & (table["benchmark"] == AVERAGE)]
    lines = lines[lines["column"] != OVERALL]
    lines = lines.drop_duplicates("arms").assign(tokens=lines["tokens_mean"].round().astype(int))
    columns = ["tokens", "arms", "ablation", "row", "value", "ci_low", "ci_high", "seeds"]
    ordered = lines.sort_values(["tokens", "value"], ascending=[True, False], kind="stable")
    return ordered[columns].reset_index(drop=True)


def disagreements(results: Results, first: str, second: str) -> pd.DataFrame:
    """The questions of all benchmarks with both arms' answers, and who is right in `outcome`.

    ValueError where an arm has no scores, or both are the same.
    """
    if first == second:
        raise ValueError(f"compare {first!r} with another arm, not with itself")
    for arm in (first, second):
        if arm not in results.arms:
            raise ValueError(unknown("arm", arm, results.arms))
    keys = ["benchmark", "question_id"]
    one, other = (results.scores[results.scores["arm"] == arm] for arm in (first, second))
    pair = one[[*keys, "image_id", "category", "target", "answer", "score"]].merge(
        other[[*keys, "answer", "score"]], on=keys, suffixes=("_first", "_second"), validate="1:1"
    )
    right, also = pair["score_first"] > 0.5, pair["score_second"] > 0.5
    outcomes = ["both right", f"only {first}", f"only {second}", "both wrong"]
    pair["outcome"] = pd.Categorical(
        np.select([right & also, right & ~also, ~right & also], outcomes[:3], outcomes[3]),
        categories=outcomes,
    )
    return pair


def losses(results: Results, arm: str) -> pd.DataFrame:
    """Per benchmark and image: rho, phi and `loss`, the share of right answers with all tokens
    minus that of the arm."""
    pair = disagreements(results, ALL_TOKENS, arm)
    pair["loss"] = pair["score_first"] - pair["score_second"]
    lost = pair.groupby(["benchmark", "image_id"], sort=False)["loss"].mean().reset_index()
    return lost.merge(results.information, on=["benchmark", "image_id"], how="left", validate="1:1")


def image_correlations(table: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Spearman's rank correlation of phi and loss per benchmark, with a 95 % bootstrap interval.

    Images are resampled, `RESAMPLES` times. NaN where every image loses the same.
    """
    lines = []
    for benchmark, own in table.groupby("benchmark", sort=False):
        pair = own[["phi", "loss"]].to_numpy()
        generator = np.random.default_rng(seed)
        drawn = [
            _spearman(pair[generator.integers(0, len(pair), len(pair))]) for _ in range(RESAMPLES)
        ]
        known = [value for value in drawn if not np.isnan(value)]
        low, high = np.percentile(known, [2.5, 97.5]) if known else (np.nan, np.nan)
        lines.append((benchmark, len(own), own["loss"].mean(), _spearman(pair), low, high))
    names = ["benchmark", "images", "mean loss", "correlation", "low", "high"]
    return pd.DataFrame(lines, columns=names)


def _spearman(pair: np.ndarray) -> float:
    if (pair == pair[0]).all(axis=0).any():
        return float("nan")
    return float(spearmanr(pair[:, 0], pair[:, 1]).statistic)
