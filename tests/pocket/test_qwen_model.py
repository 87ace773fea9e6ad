"""The shipped Pocket-Qwen2-VL sees images of any shape, and notices where its tokens stand."""

from __future__ import annotations

import json

import pytest
import torch
from builders.pocket_models import asked_both_ways, mean
from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer

from prunesid.core.questions import Question
from prunesid.families import load
from prunesid.generate.engine import answer
from prunesid.pocket.benchmarks import BENCHMARKS
from prunesid.pocket.evaluate import accuracy, held_out, moved, one_place, shown, swapped
from prunesid.pocket.qwen import WEIGHTS
from prunesid.pocket.qwen.questions import EVALUATED
from prunesid.pocket.qwen.scenes import GRIDS, TOKEN

QWEN = [name for name in BENCHMARKS if name.startswith("pocket_qwen")]
PLACED = ("side", "spatial", "corner", "place")


@pytest.fixture(scope="module")
def adapter():
    return load(WEIGHTS)


@pytest.fixture(scope="module")
def heldout():
    return held_out(24, "qwen2_vl")


@pytest.fixture(scope="module")
def pictures(heldout):
    return [shown(scene) for scene in heldout.scenes]


@pytest.fixture(scope="module")
def seen(adapter, heldout, pictures):
    return accuracy(adapter, pictures, heldout.questions)


def test_it_fits_a_repository_and_sees_images_of_all_shapes(heldout, seen):
    assert (WEIGHTS / "model.safetensors").stat().st_size < 10_000_000
    grids = {tuple(side // TOKEN for side in scene.size) for scene in heldout.scenes}
    assert grids <= set(GRIDS) and len(grids) > 6
    assert mean(seen) >= 85


@torch.no_grad()
def test_everything_kept_is_the_unmodified_model(adapter, heldout, pictures):
    model = AutoModelForImageTextToText.from_pretrained(
        WEIGHTS, use_safetensors=True, dtype=torch.float32
    )
    tokenizer = AutoTokenizer.from_pretrained(WEIGHTS)
    pixels = AutoImageProcessor.from_pretrained(WEIGHTS)
    for number in range(4):
        inputs = pixels([pictures[number]], return_tensors="pt")
        records = adapter.encode(adapter.preprocess([pictures[number]]), names=["image"])
        width, height = pictures[number].size
        marks = "<|image_pad|>" * (width // TOKEN * height // TOKEN)
        for question in heldout.questions[number][:4]:
            message = {
                "role": "user",
                "content": [{"type": "image"}, {"type": "text", "text": question.prompt}],
            }
            text = tokenizer.apply_chat_template(
                [message], tokenize=False, add_generation_prompt=True
            )
            ids = tokenizer(text.replace("<|image_pad|>", marks), return_tensors="pt")["input_ids"]
            types = (ids == model.config.image_token_id).long()
            output = model.generate(
                input_ids=ids, mm_token_type_ids=types, **inputs, max_new_tokens=6, do_sample=False
            )
            alone = tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True)
            asked = Question("0", "image", question.prompt, {"max_new_tokens": 6})
            (found,) = answer(adapter, records.all_tokens(), records.inputs, [asked], batch_size=1)
            assert found.answer == alone.strip()


@pytest.mark.parametrize("name", QWEN)
@pytest.mark.parametrize("budget", [24, 400])
def test_shared_prefix_answers_equal_plain_generate(adapter, name, budget, tmp_path):
    for shared, alone in asked_both_ways(adapter, name, budget, tmp_path):
        assert shared.answer == alone


@pytest.mark.parametrize("where", [one_place, swapped])
def test_wrong_positions_are_seen(adapter, heldout, pictures, seen, where):
    with moved(adapter, where):
        wrong = accuracy(adapter, pictures, heldout.questions)
    assert mean(wrong, PLACED) < mean(seen, PLACED) - 15
    # What things look like does not depend on where they are.
    looks = ("attribute", "background")
    assert mean(wrong, looks) > mean(seen, looks) - 15


def test_the_card_states_every_family():
    card = (WEIGHTS / "README.md").read_text()
    measured = json.loads((WEIGHTS / "card.json").read_text())
    for family in EVALUATED:
        assert f"| {family} |" in card
        for column in ("seen", "one_place", "swapped", "gray", "other"):
            assert f"{measured[column][family]:.1f}" in card
