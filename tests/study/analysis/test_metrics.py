"""Metrics from sums over images equal lmms-eval's own aggregations, also in resamples."""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

from prunesid.study.analysis.metrics import image_sums, statistic


def lmms_utils(task: str) -> ModuleType:
    """lmms-eval's helper module of a task, without importing the whole of lmms-eval."""
    package = importlib.util.find_spec("lmms_eval")
    assert package and package.origin
    path = Path(package.origin).parent / "tasks" / task / "utils.py"
    spec = importlib.util.spec_from_file_location(f"lmms_{task}", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def value(scores: pd.DataFrame, name: str) -> float:
    chosen = statistic(name)
    image, names = pd.factorize(scores["image_id"])
    sums = image_sums(scores, chosen, image, len(names))
    return float(chosen.value(sums.sum(axis=0)))


def yes_no(random: np.random.Generator, images: int = 30, each: int = 6) -> pd.DataFrame:
    count = images * each
    target = random.choice(["yes", "no"], size=count)
    answer = np.where(
        random.random(count) < 0.8, target, random.choice(["yes", "No ", "maybe"], count)
    )
    same = np.char.lower(np.char.strip(answer)) == target
    return pd.DataFrame(
        {
            "image_id": [f"i{q // each}" for q in range(count)],
            "question_id": [str(q) for q in range(count)],
            "category": "existence",
            "answer": answer,
            "target": target,
            "score": same.astype(float),
        }
    )


def pairs(random: np.random.Generator, images: int = 25) -> pd.DataFrame:
    keys = [
        (f"i{i}", c) for i in range(images) for c in ("count", "color", "OCR") for _ in range(2)
    ]
    table = pd.DataFrame(keys, columns=["image_id", "category"])
    return table.assign(score=(random.random(len(table)) < 0.7).astype(float))


@pytest.mark.parametrize("seed", range(5))
def test_f1_is_lmms_evals_pope_f1(seed):
    scores = yes_no(np.random.default_rng(seed))
    utils = lmms_utils("pope")
    results = [
        utils.pope_process_results({"answer": q.target, "question_id": q.question_id}, [q.answer])[
            "pope_f1_score"
        ]
        for q in scores.itertuples()
    ]
    assert value(scores, "f1") == pytest.approx(utils.pope_aggregate_f1_score(results), abs=1e-12)


def test_f1_without_a_hit_is_zero_as_lmms_eval_says():
    scores = yes_no(np.random.default_rng(0)).assign(answer="no")
    assert value(scores, "f1") == 0


@pytest.mark.parametrize("seed", range(5))
def test_mme_is_lmms_evals_mme_score(seed):
    scores = pairs(np.random.default_rng(seed))
    results = [
        {"question_id": q.image_id, "category": q.category, "score": q.score}
        for q in scores.itertuples()
    ]
    expected = lmms_utils("mme").mme_aggregate_results(results)
    assert value(scores, "mme") == pytest.approx(expected, abs=1e-9)


def test_mme_takes_pairs_in_any_order_of_images():
    scores = pairs(np.random.default_rng(0))
    shuffled = scores.sort_values("category", kind="stable")
    assert value(shuffled, "mme") == pytest.approx(value(scores, "mme"))


def test_mme_refuses_half_a_pair():
    scores = pairs(np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"pairs; image i24 .* category OCR"):
        value(scores.iloc[:-1], "mme")


def test_mean_is_the_mean():
    scores = yes_no(np.random.default_rng(0))
    assert value(scores, "mean") == pytest.approx(scores["score"].mean())


def test_weighted_is_the_ratio_of_the_marks():
    given, reference = [6.0, 2.0, 9.0], [8.0, 9.0, 6.0]
    scores = pd.DataFrame({"image_id": ["a", "b", "b"], "weight": reference})
    scores["score"] = [ours / theirs for ours, theirs in zip(given, reference, strict=True)]
    assert value(scores, "weighted") == pytest.approx(17 / 23)


@pytest.mark.parametrize("name", ["mean", "weighted", "f1", "mme"])
def test_weighted_sums_are_the_metric_of_the_resample(name):
    random = np.random.default_rng(1)
    scores = pairs(random) if name == "mme" else yes_no(random)
    scores["weight"] = random.uniform(1, 10, len(scores))
    image, names = pd.factorize(scores["image_id"])
    drawn = random.integers(len(names), size=len(names))
    copies = [
        scores[image == one].assign(image_id=f"copy{place}") for place, one in enumerate(drawn)
    ]
    chosen = statistic(name)
    weights = np.bincount(drawn, minlength=len(names)).astype(float)
    sums = image_sums(scores, chosen, image, len(names))
    assert float(chosen.value(weights @ sums)) == pytest.approx(value(pd.concat(copies), name))


def test_unknown_statistics_name_the_choices():
    with pytest.raises(ValueError, match="Did you mean 'mean'"):
        statistic("men")
