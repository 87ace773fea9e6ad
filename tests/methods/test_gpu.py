"""CUDA chooses the tokens that the CPU chooses."""

from __future__ import annotations

import golden_cases
import pytest
import torch
from golden import inputs

from prunesid import compress
from prunesid.methods.features import list_feature_methods

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA"),
]


@pytest.mark.parametrize("kind", inputs.KINDS)
@pytest.mark.parametrize("method", list_feature_methods())
def test_every_method_keeps_the_same_tokens(method, kind):
    record = golden_cases.record(kind, 0)
    for budget in (16, 64, 192):
        there = compress(record.to(device="cuda"), method, budget=budget)
        assert there.index.cpu().tolist() == compress(record, method, budget=budget).index.tolist()
