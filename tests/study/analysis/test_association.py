"""Spread of a score and rank correlation over a few benchmarks."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from prunesid.study.analysis.association import rank_correlation, spreads
from prunesid.study.config.study import Bootstrap

MANY = Bootstrap(resamples=4000)


def test_the_spread_is_the_sample_standard_deviation_with_its_interval():
    random = np.random.default_rng(1)
    phi = 0.8 + 0.05 * random.standard_normal(400)
    table = pd.DataFrame({"benchmark": ["a"] * 400 + ["b"] * 2, "phi": [*phi, 0.5, 0.7]})
    found = spreads(table, MANY)
    a = found["a"]
    assert a.images == 400
    assert a.std == pytest.approx(phi.std(ddof=1))
    assert a.mean == pytest.approx(phi.mean())
    assert a.std_low < a.std < a.std_high
    # The standard error of a normal sample's standard deviation is sigma / sqrt(2 n).
    assert a.std_error == pytest.approx(0.05 / np.sqrt(800), rel=0.15)
    assert a.mean_high - a.mean_low == pytest.approx(2 * 1.96 * 0.05 / 20, rel=0.15)
    assert found["b"].std == pytest.approx(np.std([0.5, 0.7], ddof=1))


def test_one_image_has_no_spread():
    found = spreads(pd.DataFrame({"benchmark": ["a"], "phi": [0.7]}), MANY)["a"]
    assert found.mean == 0.7
    assert np.isnan(found.std)


@pytest.mark.parametrize("count", [4, 6, 9])
def test_value_and_p_agree_with_scipy(count):
    random = np.random.default_rng(count)
    x, y = random.standard_normal(count), random.standard_normal(count)
    found = rank_correlation(list(x), list(y), [0.1] * count, [0.1] * count, MANY)
    expected = stats.spearmanr(x, y)
    assert found.value == pytest.approx(expected.statistic)
    if count > 8:
        assert found.p == pytest.approx(expected.pvalue)
    else:
        exact = stats.permutation_test(
            (x,),
            lambda own: stats.spearmanr(own, y).statistic,
            permutation_type="pairings",
            n_resamples=np.inf,
        )
        assert found.p == pytest.approx(exact.pvalue)


def test_the_interval_follows_the_errors():
    x, y = [1.0, 2.0, 3.0, 4.0], [0.0, 1.0, 2.0, 3.0]
    sure = rank_correlation(x, y, [1e-6] * 4, [1e-6] * 4, MANY)
    unsure = rank_correlation(x, y, [1.0] * 4, [5.0] * 4, MANY)
    assert (sure.low, sure.value, sure.high) == (1, 1, 1)
    assert unsure.low < -0.3 < unsure.high == 1
    assert sure.p == sure.least_p == pytest.approx(1 / 12)
    assert unsure == rank_correlation(x, y, [1.0] * 4, [5.0] * 4, MANY)


def test_ties_share_their_rank_in_the_interval_too():
    found = rank_correlation([1.0, 2.0, 3.0], [-1.0, 0.0, 0.0], [0.0] * 3, [0.0] * 3, MANY)
    assert found.low == pytest.approx(found.value) == pytest.approx(found.high)


def test_too_few_or_equal_values_have_no_correlation():
    assert np.isnan(rank_correlation([1, 2], [1, 2], [0, 0], [0, 0], MANY).value)
    assert np.isnan(rank_correlation([1, 1, 1], [1, 2, 3], [0] * 3, [0] * 3, MANY).value)
