"""Choices that float32 speeds up are those of float64, however wrong float32 is."""

import pytest
import torch
from builders.synthetic import KINDS, features

from prunesid import VisionRecord, compress
from prunesid.core.numerics import float32_first, float32_gram
from prunesid.methods.features import divprune, greedy_map, scope
from prunesid.methods.features.prunesid.information import (
    cosine,
    inverse_lengths,
    similarity,
    unit,
)

TOKENS, CHANNELS = 60, 2048
EXTRA = ("near ties", "copies", "low rank", "tiny")


def image(kind, seed=0):
    """(1, TOKENS, CHANNELS) float32"""
    generator = torch.Generator().manual_seed(seed)
    x = features("random", 1, TOKENS, CHANNELS, seed)
    if kind == "near ties":  # every other token is a neighbor that differs in the last bits
        x[:, 1::2] = x[:, ::2] * (1 + 2**-22 * torch.randn(x[:, ::2].shape, generator=generator))
        return x
    if kind == "copies":
        return x[:, : TOKENS // 3].repeat(1, 3, 1)
    if kind == "low rank":
        return x[:, :, :7] @ torch.randn((7, CHANNELS), generator=generator)
    return x * 1e-42 if kind == "tiny" else features(kind, 1, TOKENS, CHANNELS, seed)


def weights(seed=0):
    return torch.rand(1, TOKENS, generator=torch.Generator().manual_seed(seed)).double()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", KINDS + EXTRA)
def test_divprune_by_bounds(kind, seed):
    x = image(kind, seed)
    for steps in (1, 12, TOKENS - 1):
        exact = divprune._picks(similarity(x), steps)[0]
        assert divprune._picks_by_bounds(x, steps).tolist() == exact.tolist()


@pytest.mark.parametrize("error", [1e-3, 0.03, 0.3])
@pytest.mark.parametrize("kind", ["random", "clustered", "near ties", "low rank"])
def test_divprune_with_any_errors_within_the_bound(kind, error, monkeypatch):
    x = image(kind)
    exact = divprune._picks(similarity(x), 20)[0]
    noise = error * (2 * torch.rand(TOKENS, TOKENS, generator=torch.Generator().manual_seed(1)) - 1)
    rough = cosine(x) + 0.99 * noise.triu(1) + 0.99 * noise.triu(1).T
    assert divprune._picks(rough, 20)[0].tolist() != exact.tolist() or error < 0.01
    lengths = x.double().norm(dim=2)
    products = (rough * lengths[:, :, None] * lengths[:, None]).float()
    monkeypatch.setattr(divprune, "float32_gram", lambda rows: (products, error))
    monkeypatch.setattr(divprune, "MANY", TOKENS)
    assert divprune._picks_by_bounds(x, 20).tolist() == exact.tolist()


def test_divprune_computes_all_similarities_only_among_duplicates(monkeypatch):
    whole = []
    monkeypatch.setattr(divprune, "similarity", lambda x: whole.append(x) or similarity(x))
    divprune._picks_by_bounds(image("random"), 20)
    assert whole == []
    divprune._picks_by_bounds(image("identical"), 20)
    assert len(whole) == 1


@pytest.mark.parametrize("scale", [2.0**-36, 1.0, 2.0**36])
@pytest.mark.parametrize("kind", KINDS + EXTRA)
def test_float32_products_are_within_their_error(kind, scale):
    x = scale * image(kind)
    inverse = inverse_lengths(x)
    products, error = float32_gram(x)
    largest = (products * inverse[:, :, None] * inverse[:, None] - cosine(x)).abs().max()
    assert error < 1e-4
    # Of tiny tokens float32 loses the products.
    assert largest <= error or kind == "tiny"
    assert largest > 0 or kind not in ("random", "clustered")


@pytest.mark.parametrize("scale", [1e-42, 1e-15, 1e13, 1e30])
def test_divprune_of_tokens_near_the_ends_of_float32(scale, monkeypatch):
    x = scale * image("random")
    products = []
    monkeypatch.setattr(divprune, "float32_gram", lambda rows: products.append(rows))
    exact = divprune._picks(similarity(x), 20)[0]
    assert divprune._picks_by_bounds(x, 20).tolist() == exact.tolist()
    assert products == []


def test_a_zero_token_has_no_inverse_length():
    x = image("random")
    x[:, 3] = 0
    inverse = inverse_lengths(x)
    assert inverse[0, 3] == 0
    torch.testing.assert_close(x * inverse[:, :, None], unit(x), rtol=1e-12, atol=0)


def test_float32_is_used_only_where_its_bound_holds():
    x = image("random")
    assert float32_first(x)
    assert float32_first(x.bfloat16())
    assert not float32_first(x[:, :, 1:])
    assert not float32_first(x.double())
    with torch.autocast("cpu"):
        assert not float32_first(x)
    torch.set_float32_matmul_precision("medium")
    try:
        assert not float32_first(x)
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize("method", ["divprune", "cdpruner"])
def test_the_same_tokens_in_a_batch_alone_and_without_float32(method, monkeypatch):
    x = torch.cat([image("clustered"), image("copies"), image("random")])
    record = VisionRecord(
        x, projected=x.bfloat16(), relevance=torch.cat([weights(i).float() for i in range(3)])
    )
    together = compress(record, method, budget=12).index.tolist()
    for i in range(3):
        assert compress(record.rows([i]), method, budget=12).index[0].tolist() == together[i]
    module = divprune if method == "divprune" else greedy_map
    monkeypatch.setattr(module, "float32_first", lambda tokens: False)
    assert compress(record, method, budget=12).index.tolist() == together


@pytest.mark.parametrize("kind", KINDS + EXTRA)
@pytest.mark.parametrize("guess", ["own", "wrong", "repeated"])
def test_map_inference_whatever_the_guess(kind, guess, monkeypatch):
    x, weight = image(kind), weights()
    steps = 15
    exact = greedy_map._picks_by_gram(x, weight[0], steps)
    if guess == "wrong":
        others = torch.tensor([i for i in range(TOKENS) if i not in exact.tolist()])[:steps]
        monkeypatch.setattr(greedy_map, "_guess", lambda *_: others)
    if guess == "repeated":
        monkeypatch.setattr(greedy_map, "_guess", lambda *_: exact[:1].expand(steps))
    assert greedy_map._picks_by_rows(x, weight[0], steps).tolist() == exact.tolist()


@pytest.mark.parametrize("kind", KINDS + EXTRA)
@pytest.mark.parametrize("equal", [True, False])
def test_map_inference_of_one_image_is_that_of_a_batch(kind, equal):
    x = torch.cat([image(kind, 1), image("random", 2), image("low rank", 3)])
    weight = torch.cat([weights(1), weights(2), weights(3)])
    weight = torch.ones_like(weight) if equal else weight
    picks = greedy_map._batch_picks(cosine(x), weight, TOKENS - 1)
    for i in range(3):
        alone = greedy_map._picks_by_gram(x[i : i + 1], weight[i], TOKENS - 1)
        assert alone.tolist() == picks[i].tolist()
        assert sorted(alone.tolist()) == sorted(set(alone.tolist()))


@pytest.mark.parametrize("kind", KINDS + EXTRA)
@pytest.mark.parametrize("refreshed", [1, 16])
def test_scope_computes_only_the_gains_that_matter(kind, refreshed, monkeypatch):
    monkeypatch.setattr(scope, "REFRESHED", refreshed)
    similarities = similarity(image(kind))
    for saliency in (weights(), (weights() * 4).floor(), torch.ones(1, TOKENS).double()):
        exact = scope._greedy(similarities, saliency, TOKENS)
        lazy = scope._lazy_greedy(similarities[0].numpy(), saliency[0].numpy(), TOKENS)
        assert lazy.tolist() == exact[0].tolist()
