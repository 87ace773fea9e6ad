"""The shipped Pocket-LLaVA-NeXT sees details in sub-crops, and notices where its tokens stand."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from builders.pocket_models import asked_both_ways, mean
from transformers import AutoModelForImageTextToText, AutoProcessor

from prunesid.families import load
from prunesid.pocket.benchmarks import BENCHMARKS
from prunesid.pocket.drawing import draw
from prunesid.pocket.evaluate import accuracy, base_crop, held_out
from prunesid.pocket.next import WEIGHTS
from prunesid.pocket.next.scenes import SIZES
from prunesid.pocket.next.views import BASE, layout
from prunesid.pocket.questions import EVALUATED
from prunesid.pocket.training.grounding import NONE

NEXT = [name for name in BENCHMARKS if name.startswith("pocket_next")]
LAYOUTS = {len(layout(size).source): layout(size) for size in SIZES}


@pytest.fixture(scope="module")
def adapter():
    return load(WEIGHTS)


@pytest.fixture(scope="module")
def heldout():
    return held_out(16, "llava_next")


@pytest.fixture(scope="module")
def pictures(heldout):
    return [draw(scene)[0] for scene in heldout.scenes]


def test_it_loads_through_the_auto_classes(heldout, pictures):
    model = AutoModelForImageTextToText.from_pretrained(WEIGHTS, use_safetensors=True)
    processor = AutoProcessor.from_pretrained(WEIGHTS)
    content = [{"type": "image"}, {"type": "text", "text": "what is the background ?"}]
    prompt = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True
    )
    inputs = processor(images=pictures[0], text=prompt, return_tensors="pt")
    count = int((inputs["input_ids"] == model.config.image_token_id).sum())
    assert count == len(layout(heldout.scenes[0].size).source)
    output = model.generate(**inputs, max_new_tokens=4, do_sample=False)
    answered = processor.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert answered == heldout.scenes[0].background.style


@pytest.mark.parametrize("name", NEXT)
@pytest.mark.parametrize("budget", [160, 2880])
def test_shared_prefix_answers_equal_plain_generate(adapter, name, budget, tmp_path):
    for shared, alone in asked_both_ways(adapter, name, budget, tmp_path):
        assert shared.answer == alone


def test_details_need_the_sub_crops(adapter, heldout, pictures):
    seen = accuracy(adapter, pictures, heldout.questions)
    base = accuracy(adapter, pictures, heldout.questions, base_crop)
    assert mean(seen) > mean(base) + 15
    # There are few codes on these images; the card has the numbers of 200.
    assert seen["code"] > base["code"] == 0


def crop_by_crop(tokens: torch.Tensor) -> torch.Tensor:
    """The map's patches in the order of the sub-crops; newlines last."""
    source = LAYOUTS[len(tokens)].source
    crop = torch.where(source == NONE, source.max() + 1, source)
    return tokens[torch.cat([torch.arange(BASE), BASE + crop[BASE:].argsort(stable=True)])]


def without_newlines(tokens: torch.Tensor) -> torch.Tensor:
    return tokens[LAYOUTS[len(tokens)].source != NONE]


@pytest.mark.parametrize("broken", [crop_by_crop, without_newlines])
def test_a_wrong_order_and_missing_newlines_are_seen(
    adapter, heldout, pictures, broken, monkeypatch
):
    where = ("side", "spatial")
    asked = [[q for q in questions if q.family in where] for questions in heldout.questions]
    right = accuracy(adapter, pictures, asked)
    enter = adapter.enter

    def wrong(crops, medium):
        found = enter(crops, medium)
        return replace(found, embeddings=broken(found.embeddings))

    monkeypatch.setattr(adapter, "enter", wrong)
    assert mean(accuracy(adapter, pictures, asked)) < mean(right) - 10


def test_the_card_states_every_family():
    card = (WEIGHTS / "README.md").read_text()
    measured = json.loads((WEIGHTS / "card.json").read_text())
    for family in EVALUATED:
        assert f"| {family} |" in card
        for column in ("seen", "base"):
            assert f"{measured[column][family]:.1f}" in card
