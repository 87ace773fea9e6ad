"""Per-question scores of made-up arms: known accuracies, answers correlated as real ones are."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import norm

from prunesid.study.analysis.arm_facts import ARM_COLUMNS
from prunesid.study.config.ablation import Ablation, load_ablation, parse_ablation
from prunesid.study.config.arm import Arm
from prunesid.study.config.documents import Document, check, read_schema
from prunesid.study.config.study import Benchmark
from prunesid.study.files.costs import COLUMNS

ROOT = Path(__file__).resolve().parents[2]
GQA = Benchmark("pocket_gqa", "GQA", "", "pocket_gqa", "exact_match", "mean", "gqa")
MME = Benchmark("pocket_mme", "MME", "", "pocket_mme", "mme_perception_score", "mme", "mme")
POPE = Benchmark("pocket_pope", "POPE", "", "pocket_pope", "pope_f1_score", "f1", "pope")
SQA = Benchmark("pocket_sqa", "SQA", "", "pocket_sqa", "exact_match", "mean", "sqa")
BENCHMARKS = (GQA, MME, POPE, SQA)
CATEGORIES = ("existence", "count", "position", "color")


def grouping() -> Ablation:
    return load_ablation(ROOT / "configs" / "ablations" / "grouping.yaml")


def ablation_of(name: str = "made_up", seeds: int = 3, **document: object) -> Ablation:
    """An ablation from fields as its YAML would hold them; the schema is applied."""
    given = {"title": "Made up", **document}
    filled = check(Document(given, name), read_schema("ablation"))
    return parse_ablation(name, filled, seeds)


def accuracy(arm: Arm) -> float:
    """PSCA best, k-means then random groups worse, all better with more tokens."""
    if arm.is_vanilla:
        return 0.92
    loss = {"psca": 0.0, "kmeans": 0.025, "random": 0.06}[str(arm.resolved()["grouping"])]
    return 0.90 - (loss + 0.05) * 64 / (arm.budget or 1)


def scores_of(
    arms: tuple[Arm, ...],
    benchmarks: tuple[Benchmark, ...] = BENCHMARKS,
    images: int = 120,
    seed: int = 0,
    skill: Callable[[Arm], float] = accuracy,
    whole: int = 576,
) -> pd.DataFrame:
    """Scores of every arm: right where shared difficulty and the arm's own luck allow it.

    whole  tokens of an image when all are kept
    """
    tables = []
    for place, benchmark in enumerate(benchmarks):
        random = np.random.default_rng([seed, place])
        questions = _questions(benchmark, images)
        image = questions["image_id"].str[3:].astype(int).to_numpy()
        difficulty = 0.4 * random.normal(size=images)[image] + 0.8 * random.normal(
            size=len(questions)
        )
        for arm in arms:
            luck = np.sqrt(1 - 0.4**2 - 0.8**2) * random.normal(size=len(questions))
            right = difficulty + luck < norm.ppf(skill(arm))
            tables.append(_answered(questions, benchmark, arm, right, whole))
    return pd.concat(tables, ignore_index=True)


def _questions(benchmark: Benchmark, images: int) -> pd.DataFrame:
    if benchmark.statistic == "mme":
        rows = [
            (f"img{i}", category, target)
            for i in range(images)
            for category in CATEGORIES
            for target in ("yes", "no")
        ]
    elif benchmark.statistic == "f1":
        rows = [
            (f"img{i}", "existence", ("yes", "no")[q % 2]) for i in range(images) for q in range(6)
        ]
    else:
        rows = [(f"img{i}", f"family{q % 4}", f"word{q}") for i in range(images) for q in range(8)]
    table = pd.DataFrame(rows, columns=["image_id", "category", "target"])
    table["question_id"] = [str(number) for number in range(len(table))]
    return table


def _answered(
    questions: pd.DataFrame, benchmark: Benchmark, arm: Arm, right: np.ndarray, whole: int
) -> pd.DataFrame:
    wrong = questions["target"].map({"yes": "no", "no": "yes"}).fillna("something else")
    return questions.assign(
        benchmark=benchmark.name,
        arm=arm.name,
        question="What is it?",
        answer=questions["target"].where(right, wrong),
        score=right.astype(float),
        weight=1.0,
        tokens=arm.budget or whole,
    )


def information_of(images: int = 30) -> pd.DataFrame:
    """Information scores of the first images of every benchmark, evenly from 0.6 to 0.9."""
    names = [f"img{i}" for i in range(images)]
    phi = np.linspace(0.6, 0.9, images)
    return pd.concat(
        pd.DataFrame({"benchmark": b.name, "image_id": names, "phi": phi}) for b in BENCHMARKS
    )


def facts_of(arms: tuple[Arm, ...]) -> pd.DataFrame:
    """What arms.csv holds of arms that keep their budget, at the same cost."""
    empty = dict.fromkeys(ARM_COLUMNS, np.nan) | dict.fromkeys(COLUMNS, 1.5e9)
    lines = []
    for arm in arms:
        tokens = {f"tokens_{what}": arm.budget or 576 for what in ("mean", "min", "max")}
        entering = 576 if arm.is_late else arm.budget
        own = empty | {"arm": arm.name, "input_mean": entering} | tokens
        lines += [own | {"benchmark": b.name} for b in BENCHMARKS]
    return pd.DataFrame(lines)
