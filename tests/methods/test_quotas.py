import pytest
import torch
from builders.reference import paper_quotas, release_quotas
from hypothesis import given, settings
from hypothesis import strategies as st

from prunesid.methods.features.prunesid.quotas import group_counts, quotas, selection_rank

plain = settings(derandomize=True, deadline=None, max_examples=150)


@st.composite
def groups(draw):
    sizes = draw(st.lists(st.integers(0, 30), min_size=1, max_size=12).filter(any))
    survivors = [draw(st.integers(1, c)) if c else 0 for c in sizes]
    return sizes, survivors, draw(st.integers(1, sum(sizes)))


def run(sizes, survivors, budget, **rules):
    out = quotas(torch.tensor([sizes]), torch.tensor([survivors]), torch.tensor([budget]), **rules)
    return out[0].tolist()


@plain
@given(groups())
def test_paper_quotas(case):
    sizes, survivors, budget = case
    ours = run(sizes, survivors, budget)
    if sum(survivors) <= budget:
        assert ours == survivors
    else:
        assert ours == paper_quotas(survivors, budget)


@plain
@given(groups(), st.integers(0, 1))
def test_release_quotas(case, reserved):
    sizes, survivors, budget = case
    rules = {"cap": "release", "rounding": "cumulative", "refill": "caps", "reserved": reserved}
    assert run(sizes, survivors, budget, **rules) == release_quotas(
        sizes, survivors, budget, reserved
    )


@plain
@given(
    groups(),
    st.integers(0, 1),
    st.sampled_from(["none", "release"]),
    st.sampled_from(["largest_remainder", "cumulative"]),
    st.sampled_from(["score", "caps"]),
)
def test_any_rules_stay_within_groups_and_budget(case, reserved, cap, rounding, refill):
    sizes, survivors, budget = case
    counts = run(
        sizes, survivors, budget, reserved=reserved, cap=cap, rounding=rounding, refill=refill
    )
    assert all(0 <= n <= c for n, c in zip(counts, sizes, strict=True))
    assert sum(counts) <= budget - reserved
    if refill == "caps":
        assert sum(counts) == budget - reserved
    if refill == "score":
        assert all(n <= m for n, m in zip(counts, survivors, strict=True))
        if cap == "none":
            assert sum(counts) == min(budget - reserved, sum(survivors))
    if cap == "release" and sum(c > 0 for c in sizes) <= budget - reserved:
        assert all(n >= 1 for n, c in zip(counts, sizes, strict=True) if c)


def test_ties_go_to_the_lower_group():
    assert run([5, 5, 5], [5, 5, 5], 4) == [2, 1, 1]
    assert run([5, 5, 5], [5, 5, 5], 5) == [2, 2, 1]


def test_half_is_rounded_to_even():
    # Two groups of equal size share R = 3 places: the edge at 1.5 becomes 2.
    assert run([9, 9], [9, 9], 3, rounding="cumulative") == [2, 1]
    assert run([9, 9], [9, 9], 5, rounding="cumulative") == [2, 3]


def test_release_cap_holds_while_it_can():
    rules = {"cap": "release", "rounding": "cumulative", "refill": "caps", "reserved": 1}
    # One each, and 5 more by the rounded shares 4.08, 4.39, 4.69, 5: 4, 0, 1, 0.
    assert run([40, 3, 3, 3], [40, 3, 3, 3], 10, **rules) == [5, 1, 2, 1]
    # The caps 5, 1 admit 6 of 10: four raises, of which the second group can take none.
    assert run([40, 1], [40, 1], 10, **rules) == [8, 1]


def test_selection_prefers_quota_then_survivors_then_score():
    group = torch.tensor([[0, 0, 1, 1, 1]])
    rank = torch.tensor([[0, 1, 2, 3, 4]])
    survived = torch.tensor([[True, False, True, False, True]])
    order = selection_rank(group, rank, survived, torch.tensor([[0, 1]]))
    assert order.argsort(dim=1).tolist() == [[2, 0, 4, 1, 3]]
    assert group_counts(group, survived, 3).tolist() == [[1, 2, 0]]


@pytest.mark.parametrize("name", ["cap", "rounding", "refill"])
def test_unknown_rules(name):
    with pytest.raises(ValueError, match=f"{name} must be one of"):
        run([3], [3], 2, **{name: "other"})
