import numpy as np
import pytest
import torch
from builders.synthetic import KINDS, features
from hypothesis import given, settings
from hypothesis import strategies as st

from prunesid.core import numerics
from prunesid.methods.features.prunesid.psca import assign, token_components


def full_svd(x, center="tokens"):
    s = torch.sigmoid(x.double())
    xc = (s - s.mean(dim=0 if center == "tokens" else 1, keepdim=True)).numpy()
    _, values, vt = np.linalg.svd(xc.T, full_matrices=False)
    return values, np.abs(vt.T)


@settings(derandomize=True, deadline=None, max_examples=40)
@given(
    tokens=st.integers(2, 50),
    channels=st.integers(2, 50),
    center=st.sampled_from(["tokens", "channels"]),
    seed=st.integers(0, 10**6),
)
def test_exact_is_the_full_svd(tokens, channels, center, seed):
    x = features("random", 2, tokens, channels, seed)
    k = min(tokens, channels)
    ours = token_components(x, k, center=center)
    for i in range(2):
        values, expected = full_svd(x[i], center)
        rank = int((values > 1e-9 * values[0]).sum())
        assert np.allclose(ours[i, :, :rank], expected[:, :rank], atol=1e-7)
        if tokens - rank > 1:
            assert not ours[i, :, rank:].any()


@pytest.mark.parametrize(("tokens", "channels"), [(40, 64), (64, 40)])
@pytest.mark.parametrize("kind", KINDS)
def test_torch_alone_finds_the_same_directions(kind, tokens, channels, monkeypatch):
    x = features(kind, 2, tokens, channels, 3)
    with_scipy = token_components(x, 12)
    monkeypatch.setattr(numerics, "_scipy_linalg", lambda: None)
    assert torch.equal(token_components(x, 12), with_scipy)


def test_paper_shape_matches_the_full_svd():
    x = features("clustered", 1, 144, 256, 0)
    _, expected = full_svd(x[0])
    assert np.allclose(token_components(x, 48)[0], expected[:, :48], atol=1e-8)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("solver", ["exact", "randomized"])
def test_any_input_gives_finite_components(kind, solver):
    x = features(kind, 2, 20, 12, 1)
    generators = [torch.Generator().manual_seed(i) for i in range(2)]
    v = token_components(x, 12, solver=solver, generators=generators)
    assert torch.isfinite(v).all()
    assert (v >= 0).all()
    assert (v <= 1).all()


def test_one_number_of_components_per_image():
    x = features("random", 3, 20, 30, 2)
    v = token_components(x, [2, 7, 4])
    assert v.shape == (3, 20, 7)
    for i, k in enumerate([2, 7, 4]):
        assert torch.equal(v[i, :, :k], token_components(x[i : i + 1], k)[0])
        assert not v[i, :, k:].any()


def test_randomized_finds_a_well_separated_leading_space():
    generator = torch.Generator().manual_seed(0)
    basis = torch.randn((3, 40), generator=generator, dtype=torch.float64)
    weights = torch.randn((60, 3), generator=generator, dtype=torch.float64)
    x = 0.1 * (weights * torch.tensor([9.0, 3.0, 1.0], dtype=torch.float64)) @ basis
    x = x[None] + 1e-6
    exact = token_components(x, 2)
    approximate = token_components(
        x, 2, solver="randomized", generators=[torch.Generator().manual_seed(1)]
    )
    assert torch.allclose(exact, approximate, atol=1e-2)


def test_equal_tokens_tie():
    x = features("duplicated", 1, 30, 12, 3)
    group, score = assign(token_components(x, 3))
    _, kinds = x[0].unique(dim=0, return_inverse=True)
    for kind in range(int(kinds.max()) + 1):
        assert len(group[0][kinds == kind].unique()) == 1
        assert len(score[0][kinds == kind].unique()) == 1


def test_identical_tokens_have_no_direction():
    group, score = assign(token_components(features("identical", 1, 10, 6, 4), 6))
    assert not group.any()
    assert not score.any()


def test_bad_arguments():
    x = features("random", 1, 10, 6, 0)
    with pytest.raises(ValueError, match=r"in 1\.\.6"):
        token_components(x, 7)
    with pytest.raises(ValueError, match="tokens, channels"):
        token_components(x, 2, center="rows")
    with pytest.raises(ValueError, match="exact, randomized"):
        token_components(x, 2, solver="fast")
    with pytest.raises(ValueError, match="one generator per image"):
        token_components(x, 2, solver="randomized")


def test_scipys_blas_leaves_the_other_cores_to_torch(monkeypatch):
    threadpoolctl = pytest.importorskip("threadpoolctl")
    linalg = pytest.importorskip("scipy.linalg")
    controller = threadpoolctl.ThreadpoolController().select(internal_api="openblas")
    seen, eigh = [], linalg.eigh

    def threads():
        return [each["num_threads"] for each in controller.info()]

    def counting(*args, **kwargs):
        seen.append(threads())
        return eigh(*args, **kwargs)

    monkeypatch.setattr(linalg, "eigh", counting)
    with controller.limit(limits=2):
        before = threads()
        matrix = torch.eye(8, dtype=torch.float64)[None]
        numerics.leading_eigenvectors(matrix, 2)
        assert threads() == before
    assert seen == [[1] * len(before)] and before
