import math

import numpy as np
import pytest
import torch
from builders.reference import redundancy as plain_redundancy
from builders.reference import similarity as plain_similarity
from builders.synthetic import KINDS, features
from hypothesis import given, settings
from hypothesis import strategies as st

from prunesid.methods.features.prunesid.information import (
    budget_scale,
    dynamic_budgets,
    information,
    redundancy,
    similarity,
    unit,
)

plain = settings(derandomize=True, deadline=None, max_examples=60)


@plain
@given(
    kind=st.sampled_from(KINDS),
    tokens=st.integers(1, 25),
    channels=st.integers(1, 25),
    seed=st.integers(0, 10**6),
)
def test_redundancy_is_the_mean_over_pairs(kind, tokens, channels, seed):
    x = features(kind, 2, tokens, channels, seed)
    sim = similarity(x)
    rho = redundancy(unit(x))
    for i in range(2):
        expected = plain_similarity(x[i].double().numpy())
        assert np.allclose(sim[i], expected, atol=2e-9)
        assert rho[i].item() == pytest.approx(plain_redundancy(expected), abs=1e-8)
    assert torch.equal(information(x), 1 - rho)


def test_duplicates_have_similarity_one_exactly():
    same = features("identical", 1, 20, 7, 0)
    assert (similarity(same) == 1).all()
    assert redundancy(unit(same)).tolist() == [1.0]
    assert redundancy(unit(torch.zeros(1, 5, 4))).tolist() == [0.0]


@pytest.mark.parametrize("scale", [1e-30, 1e30, 1e-300, 1e300])
def test_similarity_has_no_scale(scale):
    x = features("random", 1, 10, 6, 0).double()
    assert torch.allclose(similarity(x * scale), similarity(x), atol=2e-9)


scores = st.lists(st.floats(0.05, 1.5), min_size=1, max_size=60)


@plain
@given(phi=scores, budget=st.sampled_from([64, 128, 192]))
def test_benchmark_rule_meets_the_mean(phi, budget):
    budgets = dynamic_budgets(torch.tensor(phi), budget, num_tokens=576, minimum=8)
    assert budgets.dtype == torch.int64
    assert abs(budgets.double().mean() - budget) <= 0.005 * budget
    assert budgets.min() >= 8
    assert budgets.max() <= 576


@plain
@given(phi=scores)
def test_more_information_never_gets_fewer_tokens(phi):
    budgets = dynamic_budgets(torch.tensor(phi), 64, num_tokens=576)
    order = torch.tensor(phi).argsort(stable=True)
    gains = budgets[order].diff()
    ties = torch.tensor(phi)[order].diff() == 0
    assert (gains[~ties] >= 0).all()
    assert (gains[ties].abs() <= 1).all()


def test_equal_scores_share_what_rounding_leaves():
    # Nine of ten images share a score; no single c brings their mean within 0.5 % of 20.
    phi = torch.tensor([0.5] * 9 + [1.3])
    budgets = dynamic_budgets(phi, 20, num_tokens=576)
    assert budgets.double().mean() == pytest.approx(20, rel=0.005)
    assert budgets[:9].max() - budgets[:9].min() <= 1


def test_weights_count_questions():
    phi, weights = torch.tensor([0.2, 0.8, 0.5]), torch.tensor([1, 10, 3])
    budgets = dynamic_budgets(phi, 64, num_tokens=576, weights=weights)
    mean = (weights * budgets).sum() / weights.sum()
    assert mean == pytest.approx(64, rel=0.005)


def test_calibrated_rule_does_not_see_the_other_images():
    calibration = torch.rand(50, generator=torch.Generator().manual_seed(0)) + 0.1
    phi = torch.tensor([0.3, 0.9, 0.01, 50.0])
    rule = {"num_tokens": 576, "rule": "calibrated", "calibration": calibration, "minimum": 4}
    budgets = dynamic_budgets(phi, 64, **rule)
    c = budget_scale(calibration, 64, num_tokens=576, minimum=4)
    assert budgets.tolist() == [round(c * phi[0].item()), round(c * phi[1].item()), 4, 576]
    assert torch.equal(dynamic_budgets(phi[:1], 64, **rule), budgets[:1])
    alone = dynamic_budgets(calibration, 64, **rule)
    assert alone.double().mean() == pytest.approx(64, rel=0.005)


def test_limits():
    phi = torch.tensor([0.4, 0.6])
    assert dynamic_budgets(phi, 576, num_tokens=576).tolist() == [576, 576]
    assert dynamic_budgets(phi, 8, num_tokens=576, minimum=8).tolist() == [8, 8]


@pytest.mark.parametrize(
    ("phi", "arguments", "message"),
    [
        ([0.5], {"rule": "other"}, "benchmark, calibrated"),
        ([0.5], {"rule": "calibrated"}, "calibration set"),
        ([0.5], {"calibration": torch.ones(2)}, "rule='calibrated'"),
        ([0.5], {"budget": 600}, "budget <= num_tokens"),
        ([0.5], {"minimum": 100}, "minimum <= budget"),
        ([0.0, 0.0], {}, "without information"),
        ([math.nan], {}, "finite scores"),
        ([], {}, "non-empty"),
        ([0.5], {"budget": 1.5}, "nearest mean budget"),
        ([0.5], {"weights": torch.tensor([0.0])}, "weights"),
    ],
)
def test_bad_arguments(phi, arguments, message):
    arguments = {"budget": 64, "num_tokens": 576, **arguments}
    with pytest.raises(ValueError, match=message):
        dynamic_budgets(torch.tensor(phi), arguments.pop("budget"), **arguments)
