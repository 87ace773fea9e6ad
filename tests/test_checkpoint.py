"""A real checkpoint, where one lies: PRUNESID_CHECKPOINT=/path pytest tests/test_checkpoint.py."""

from __future__ import annotations

import os

import pytest
import torch
from builders.tiny_llava import random_images
from transformers import AutoModelForImageTextToText, AutoProcessor

import prunesid

CHECKPOINT = os.environ.get("PRUNESID_CHECKPOINT")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not CHECKPOINT, reason="PRUNESID_CHECKPOINT names no folder with a checkpoint"
    ),
]


@pytest.fixture(scope="module")
def loaded():
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = AutoModelForImageTextToText.from_pretrained(CHECKPOINT, dtype="auto").eval().to(device)
    return model, AutoProcessor.from_pretrained(CHECKPOINT)


@pytest.fixture(scope="module")
def inputs(loaded):
    model, processor = loaded
    text, images = prunesid.prepare(model, processor, "What is shown?", random_images(1))
    return processor(text=text, images=images, return_tensors="pt").to(model.device)


def generated(model, inputs):
    output = model.generate(**inputs, max_new_tokens=8, do_sample=False)
    return output[:, inputs["input_ids"].shape[1] :]


def test_all_tokens_give_the_plain_answer(loaded, inputs):
    plain = generated(loaded[0], inputs)
    with prunesid.pruned(*loaded, method="grid", budget=100_000):
        assert torch.equal(generated(loaded[0], inputs), plain)


@pytest.mark.parametrize("method", ["prunesid", "divprune", "fastv"])
def test_it_answers_with_fewer_tokens(loaded, inputs, method):
    with prunesid.pruned(*loaded, method=method, budget=128):
        found = generated(loaded[0], inputs)
    assert 1 <= found.shape[1] <= 8
