"""The way of an accelerator, run on the CPU: the same tokens, and few waits whatever the batch."""

from __future__ import annotations

from dataclasses import replace

import golden_cases
import pytest
import torch
from builders.synthetic import chain
from golden import inputs
from torch.utils._python_dispatch import TorchDispatchMode

from prunesid import VisionRecord, compress
from prunesid.methods.features import list_feature_methods
from prunesid.methods.features.prunesid import nms
from prunesid.methods.features.prunesid.information import unit

METHODS = [(name, {}) for name in list_feature_methods()] + [
    ("prunesid", {"preset": preset}) for preset in ("matched", "release")
]
# What makes a host wait for its device: a number is read, or a shape depends on values.
WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "bincount")


class Waits(TorchDispatchMode):
    """Counts the operations that would wait."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.name().removeprefix("aten::").split(".")[0]
        masks = name in ("index", "index_put", "index_put_") and any(
            each is not None and each.dtype == torch.bool for each in args[1]
        )
        self.count += name in WAITS or masks
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", inputs.KINDS)
@pytest.mark.parametrize(("method", "params"), METHODS)
def test_every_method_keeps_the_same_tokens(accelerator, method, params, kind):
    record = golden_cases.record(kind, 0)
    budgets = (16, 64, 192)
    expected = [compress(record, method, budget=b, **params) for b in budgets]
    accelerator()
    for budget, own in zip(budgets, expected, strict=True):
        there = compress(record, method, budget=budget, **params)
        assert there.index.tolist() == own.index.tolist()


def waits(record, method, budget, params):
    with Waits() as seen:
        compress(record, method, budget=budget, **params)
    return seen.count


@pytest.mark.parametrize(("method", "params"), METHODS)
def test_waits_grow_neither_with_images_nor_with_the_budget(accelerator, method, params):
    accelerator()
    one = golden_cases.record("random", 0)
    many = VisionRecord.cat([replace(one, image_ids=(str(number),)) for number in range(4)])
    few = waits(one, method, 16, params)
    assert 0 < few < 16
    assert waits(one, method, 192, params) <= few + 1
    assert waits(many, method, 64, params) <= few + 4


def test_a_matched_threshold_waits_for_one_answer(accelerator):
    accelerator()
    one = golden_cases.record("random", 0)
    assert waits(one, "prunesid", 64, {"preset": "matched"}) <= 6


def test_chains_longer_than_the_first_attempt_are_followed(accelerator):
    # Each token suppresses only the next one: every other token survives.
    tokens = 3 * nms.STEPS
    group, rank = torch.zeros(1, tokens, dtype=torch.long), torch.arange(tokens)[None]
    accelerator()
    pairs = nms.conflicts(unit(chain(tokens)), group, rank)
    kept = nms.suppress(pairs, torch.tensor([0.4]))
    assert kept[0].tolist() == [place % 2 == 0 for place in range(tokens)]
