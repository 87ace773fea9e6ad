"""Statistics: agreement with scipy and statsmodels, coverage on known effects, power."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as reference_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import NormalIndPower

from prunesid.study.analysis import statistics
from prunesid.study.analysis.metrics import statistic
from prunesid.study.analysis.power import detectable, pairing, questions_needed

MEAN = statistic("mean")


def paired_sums(random: np.random.Generator, images: int, effect: float) -> np.ndarray:
    """Sums (2, images, 2) of two arms whose mean scores differ by `effect`, clustered by image."""
    each = 5
    shared = 0.2 * random.normal(size=images)[:, None] + 0.1 * random.normal(size=(images, each))
    change = (
        effect
        + 0.15 * random.normal(size=images)[:, None]
        + 0.1 * random.normal(size=(images, each))
    )
    scores = np.stack([shared, shared + change])
    return np.stack([scores.sum(axis=2), np.full((2, images), float(each))], axis=2)


def difference(sums: np.ndarray, count: int, seed: int) -> np.ndarray:
    one, other = statistics.replicates(sums, MEAN, count, seed, "made up")
    return other - one


def test_the_interval_of_a_difference_covers_it_as_often_as_it_says():
    random = np.random.default_rng(0)
    covered = 0
    for trial in range(300):
        drawn = difference(paired_sums(random, 60, effect=0.05), 300, trial)
        low, high = statistics.interval(drawn, 0.95)
        covered += low <= 0.05 <= high
    assert 0.90 <= covered / 300 <= 0.98


def test_without_a_difference_p_is_uniform():
    random = np.random.default_rng(1)
    values = [
        statistics.bootstrap_p(difference(paired_sums(random, 60, 0.0), 300, trial), 60)[0]
        for trial in range(300)
    ]
    assert 0.02 <= np.mean(np.array(values) < 0.05) <= 0.10
    assert 0.40 <= np.mean(values) <= 0.60


def test_the_bootstraps_p_is_smooth_and_has_no_floor():
    """500 resamples alone could not tell a difference of 4 standard errors from one of 8."""
    drawn = np.random.default_rng(6).normal(size=500)
    shifts = np.linspace(0.1, 12, 120)
    values = np.array([statistics.bootstrap_p(drawn + shift, 100)[0] for shift in shifts])
    assert (np.diff(np.log(values)) < 0).all()
    # No step where the last resample crosses 0, nor anywhere else.
    assert np.abs(np.diff(np.log(values), n=2)).max() < 0.02
    exact = 2 * stats.t.sf((drawn + 6).mean() / drawn.std(ddof=1), 99)
    assert statistics.bootstrap_p(drawn + 6, 100)[0] == pytest.approx(exact)
    assert statistics.bootstrap_p(-(drawn + 6), 100)[0] == pytest.approx(exact)
    assert statistics.bootstrap_p(np.append(drawn + 6, np.nan), 100)[0] == pytest.approx(exact)


@pytest.mark.parametrize("effect", [0.02, 0.06, 0.1])
def test_the_monte_carlo_error_is_the_spread_over_seeds(effect):
    sums = paired_sums(np.random.default_rng(7), 80, effect)
    drawn = [statistics.bootstrap_p(difference(sums, 500, seed), 80) for seed in range(200)]
    p, error = np.array(drawn).T
    assert np.median(error) == pytest.approx(p.std(ddof=1), rel=0.25)


def test_resamples_that_do_not_differ_say_no_more_than_their_number():
    assert statistics.bootstrap_p(np.full(99, 0.5), 100) == (2 / 100, 0)
    assert statistics.bootstrap_p(np.array([1.0, 2.0, 3.0]), 1) == (2 / 4, 0)
    # Equal on paper, if not as floats.
    assert statistics.bootstrap_p(np.array([1e-15, -1e-15, 3e-15]), 100) == (1, 0)
    assert np.isnan(statistics.bootstrap_p(np.array([np.nan, 1.0, np.nan]), 100)).all()


def test_pairing_sees_what_separate_intervals_do_not():
    sums = paired_sums(np.random.default_rng(2), 100, effect=0.06)
    one, other = statistics.replicates(sums, MEAN, 2000, 0, "made up")
    apart = np.hypot(one.std(), other.std())
    assert (other - one).std() < 0.7 * apart
    assert statistics.bootstrap_p(other - one, 100)[0] < 0.01


def test_clustering_widens_the_interval():
    random = np.random.default_rng(3)
    image = np.repeat(np.arange(100), 8)
    score = (random.normal(size=100)[image] + 0.3 * random.normal(size=800) > 0).astype(float)
    clustered = np.zeros((1, 100, 2))
    np.add.at(clustered[0], image, np.stack([score, np.ones(800)], axis=1))
    single = np.stack([score, np.ones(800)], axis=1)[None]
    spread = [statistics.replicates(sums, MEAN, 1000, 0, "x").std() for sums in (clustered, single)]
    assert spread[0] > 2 * spread[1]


def test_the_bootstrap_error_is_the_standard_error():
    random = np.random.default_rng(4)
    values = random.normal(size=400)
    sums = np.stack([values, np.ones(400)], axis=1)[None]
    drawn = statistics.replicates(sums, MEAN, 4000, 0, "x")
    assert drawn.std() == pytest.approx(values.std() / 20, rel=0.05)


def test_resampling_is_seeded_and_blind_to_other_arms():
    sums = paired_sums(np.random.default_rng(5), 40, 0.1)
    both = statistics.replicates(sums, MEAN, 700, 3, "pope")
    assert np.array_equal(both, statistics.replicates(sums, MEAN, 700, 3, "pope"))
    assert np.allclose(both[:1], statistics.replicates(sums[:1], MEAN, 700, 3, "pope"))
    assert not np.array_equal(both, statistics.replicates(sums, MEAN, 700, 4, "pope"))
    assert not np.array_equal(both, statistics.replicates(sums, MEAN, 700, 3, "gqa"))
    weights = np.concatenate(list(statistics.resamples(40, 700, 3, "pope")))
    assert weights.shape == (700, 40)
    assert (weights.sum(axis=1) == 40).all()


def test_equal_arms_have_p_one():
    assert statistics.bootstrap_p(np.zeros(100), 50) == (1, 0)
    right = np.array([True, False, True])
    assert statistics.mcnemar(right, right) == 1.0


@pytest.mark.parametrize("seed", range(4))
def test_mcnemar_is_exact(seed):
    random = np.random.default_rng(seed)
    one, other = random.random((2, 200)) < np.array([[0.8], [0.72]])
    table = [
        [np.sum(one & other), np.sum(one & ~other)],
        [np.sum(~one & other), np.sum(~one & ~other)],
    ]
    expected = reference_mcnemar(table, exact=True).pvalue
    assert statistics.mcnemar(one, other) == pytest.approx(expected)
    lost, gained = table[0][1], table[1][0]
    assert statistics.mcnemar(one, other) == pytest.approx(
        stats.binomtest(int(gained), int(gained + lost)).pvalue
    )


def test_holm_is_statsmodels_holm():
    values = np.random.default_rng(0).random(30) ** 3
    expected = multipletests(values, method="holm")[1]
    assert np.allclose(statistics.holm(values), expected)
    holes = np.insert(values, [0, 7, 30], np.nan)
    adjusted = statistics.holm(holes)
    assert np.allclose(adjusted[~np.isnan(holes)], expected)
    assert np.isnan(adjusted[np.isnan(holes)]).all()
    assert np.isnan(statistics.holm(np.full(3, np.nan))).all()


def test_p_values_of_seeds_combine_to_a_valid_one():
    assert statistics.combine_p([0.02]) == 0.02
    assert statistics.combine_p([0.3, 0.01, 0.02]) == pytest.approx(3 / 2 * 0.02)
    assert statistics.combine_p([0.9, 0.8]) == 1.0
    same = np.random.default_rng(0).random(20000)
    assert np.mean([statistics.combine_p([p, p, p]) < 0.05 for p in same]) <= 0.052


def test_detectable_is_what_a_test_of_that_size_detects():
    assert detectable(1.0) == pytest.approx(2.8016, abs=1e-3)
    effect = detectable(1.0)
    power = NormalIndPower(ddof=0).power(effect, nobs1=1, alpha=0.05, ratio=0)
    assert power == pytest.approx(0.8, abs=1e-3)


def test_few_images_detect_less():
    sizes = [detectable(1.0, images) for images in (8, 20, 100, 10000)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] == pytest.approx(detectable(1.0), rel=1e-3)
    # 2^(1 - 5) is above the level.
    assert np.isnan(detectable(1.0, 5)) and detectable(1.0, 6) > sizes[0]
    assert np.isnan(detectable(0.0, 100))


def test_questions_needed():
    # 2 points at 5 % discordant answers: 2.8016^2 * (0.05 - 0.0004) / 0.0004.
    assert questions_needed(0.02, 0.05) == 974
    assert questions_needed(0.02, 0.05, design_effect=2) == pytest.approx(2 * 974, abs=1)
    assert questions_needed(0.04, 0.05) < 974 / 3
    with pytest.raises(ValueError, match="impossible"):
        questions_needed(0.06, 0.05)
    with pytest.raises(ValueError, match="impossible"):
        questions_needed(0.0, 0.05)


def test_pairing_measures_discordance_and_clustering():
    random = np.random.default_rng(0)
    count, each = 300, 6
    image = np.repeat(np.arange(count), each)
    table = pd.DataFrame({"question_id": np.arange(count * each).astype(str), "image_id": image})
    base = (random.random(count * each) < 0.8).astype(float)
    flipped = (random.random(count) < 0.1)[image]
    reference = table.assign(score=base)
    clustered = pairing(table.assign(score=np.where(flipped, 1 - base, base)), reference)
    alone = random.random(count * each) < 0.1
    independent = pairing(table.assign(score=np.where(alone, 1 - base, base)), reference)
    assert clustered.discordant == pytest.approx(flipped.mean())
    assert clustered.design_effect > 2 > 1.3 > independent.design_effect > 0.7
    questions, images = clustered.needed(0.02)
    assert images == pytest.approx(questions / each, abs=1)
    assert clustered.needed(0.04)[0] < questions
    with pytest.raises(ValueError, match="same questions"):
        pairing(reference.iloc[1:], reference)
