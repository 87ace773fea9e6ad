import torch
from builders.reference import GRID, matched_tau, nms
from builders.synthetic import chain, features
from hypothesis import given, settings
from hypothesis import strategies as st

from prunesid.core.numerics import rank_descending
from prunesid.methods.features.prunesid.information import similarity, unit
from prunesid.methods.features.prunesid.nms import (
    conflicts,
    matched_threshold,
    scaled_threshold,
    suppress,
)

plain = settings(derandomize=True, deadline=None, max_examples=50)
case = {
    "kind": st.sampled_from(["random", "clustered", "duplicated", "zero"]),
    "tokens": st.integers(1, 40),
    "groups": st.integers(1, 6),
    "seed": st.integers(0, 10**6),
}


def setting(kind, tokens, groups, seed):
    generator = torch.Generator().manual_seed(seed)
    x = features(kind, 2, tokens, 8, seed)
    group = torch.randint(groups, (2, tokens), generator=generator)
    # Few levels, so that scores tie.
    score = torch.randint(6, (2, tokens), generator=generator).double()
    return similarity(x), group, score, conflicts(unit(x), group, rank_descending(score))


@plain
@given(tau=st.floats(-1, 1), **case)
def test_fixed_point_is_greedy_nms(tau, kind, tokens, groups, seed):
    sim, group, score, pairs = setting(kind, tokens, groups, seed)
    keep = suppress(pairs, torch.tensor([tau, tau / 2], dtype=torch.float64))
    for i, threshold in enumerate((tau, tau / 2)):
        expected = nms(sim[i].numpy(), group[i].tolist(), score[i].tolist(), threshold)
        assert set(keep[i].nonzero()[:, 0].tolist()) == expected


@plain
@given(wanted=st.integers(1, 40), **case)
def test_matched_threshold_is_where_enough_survive(wanted, kind, tokens, groups, seed):
    wanted = min(wanted, tokens)
    sim, group, score, pairs = setting(kind, tokens, groups, seed)
    tau = matched_threshold(pairs, torch.tensor([wanted, 1]))
    assert (suppress(pairs, tau).sum(1) >= torch.tensor([wanted, 1])).all()
    fewer = suppress(pairs, tau - GRID).sum(1)
    assert tau[0] == -1 or fewer[0] < wanted
    assert tau[1] == -1
    expected = matched_tau(sim[0].numpy(), group[0].tolist(), score[0].tolist(), wanted)
    assert tau[0].item() == expected


def test_a_long_chain_of_suppressions():
    tokens = 41
    rank = torch.arange(tokens)[None]
    rows = unit(chain(tokens))
    keep = suppress(conflicts(rows, torch.zeros_like(rank), rank), torch.tensor([0.4]))
    assert keep[0].nonzero()[:, 0].tolist() == list(range(0, tokens, 2))


def test_scaled_threshold_is_the_papers_at_576_tokens():
    rho = torch.tensor([0.5, 0.25], dtype=torch.float64)
    budget = torch.tensor([64, 128])
    assert scaled_threshold(rho, budget, 576).tolist() == [1.0, 1.0]
    assert scaled_threshold(rho, budget, 288).tolist() == [2.0, 2.0]
    assert scaled_threshold(rho, budget, 576, lam=0.5).tolist() == [0.25, 0.125]
