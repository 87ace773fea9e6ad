"""`prunesid.prune` on every family: what it makes generates as the family's adapter does."""

from __future__ import annotations

import pytest
import torch
from conftest import random_images
from test_families import FAMILIES

import prunesid
from prunesid import models
from prunesid.models.adapter import kept_crops

QUESTION = "is there a red circle ?"
BUDGET = 12


@pytest.mark.parametrize("family", FAMILIES)
def test_pruned_inputs_generate_as_the_adapter_does(family, tiny_llava, tmp_path):
    FAMILIES[family](tmp_path / "model", tiny_llava)
    adapter = models.load(tmp_path / "model")
    inputs = adapter.preprocess(random_images(1, size=120))
    records = adapter.encode(inputs, prunesid.methods.requirements("prunesid"))
    ((medium,),) = records.inputs.values()

    def entering(kept):
        return adapter.enter(kept_crops(kept, medium), medium.layout)

    prompt = adapter.prompt(QUESTION, [medium.kind])
    before, after = prompt.texts
    width = len(entering(records.all_tokens()))
    ids = [*before, *[adapter.placeholders[medium.kind]] * width, *after]
    whole = {"input_ids": torch.tensor([ids]), **inputs}
    short = prunesid.prune(adapter.model, adapter.processor, whole, budget=BUDGET)
    assert short["input_ids"].shape[1] < len(ids)
    found = adapter.model.generate(**short, do_sample=False, max_new_tokens=6)
    expected = adapter.generate([entering(records.compress("prunesid", budget=BUDGET))], prompt, 6)
    assert found[0, short["input_ids"].shape[1] :].tolist() == expected
    same = prunesid.prune(adapter.model, adapter.processor, whole, budget=10_000)
    assert dict(same) == whole
