"""Received attention against whole attention maps."""

from __future__ import annotations

import pytest
import torch

from prunesid.families.towers import clip
from prunesid.families.towers.clip import received_attention


@pytest.fixture
def query_and_key():
    torch.manual_seed(0)
    return torch.randn(3, 4, 50, 8), torch.randn(3, 4, 50, 8)


def test_it_is_the_column_mean(query_and_key):
    query, key = query_and_key
    expected = (query @ key.transpose(-1, -2) * 0.3).softmax(-1).mean(dim=2)
    found = received_attention(query, key, 0.3)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found.sum(-1), torch.ones(3, 4))


@pytest.mark.parametrize("scores", [1, 4 * 50 * 7, 4 * 50 * 50])
def test_memory_does_not_change_it(query_and_key, scores, monkeypatch):
    expected = received_attention(*query_and_key, 0.3)
    monkeypatch.setattr(clip, "SCORES", scores)
    torch.testing.assert_close(received_attention(*query_and_key, 0.3), expected)


def test_a_batch_gives_what_its_images_give(query_and_key):
    query, key = query_and_key
    together = received_attention(query, key, 0.3)
    for image in range(3):
        alone = received_attention(query[image : image + 1], key[image : image + 1], 0.3)
        assert torch.equal(alone[0], together[image])


def test_half_precision_is_summed_in_single(query_and_key):
    query, key = (each.bfloat16() for each in query_and_key)
    assert received_attention(query, key, 0.3).dtype == torch.float32
