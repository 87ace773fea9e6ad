"""The shipped Pocket-Mini-Gemini reads details from its sharper tower, each at its own patch."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import AutoConfig

from prunesid.families import load
from prunesid.families.inputs.conversations import CONVERSATIONS
from prunesid.families.mini_gemini import (
    MiniGeminiConfig,
    MiniGeminiForConditionalGeneration,
    MiniGeminiProcessor,
    mining,
)
from prunesid.generate.engine import answer, answer_plainly
from prunesid.lmms.tasks import load_task
from prunesid.pocket.benchmarks import BENCHMARKS, render
from prunesid.pocket.drawing import draw
from prunesid.pocket.evaluate import accuracy, coarse, held_out, silence
from prunesid.pocket.gemini import WEIGHTS
from prunesid.pocket.questions import EVALUATED

NEXT = [name for name in BENCHMARKS if name.startswith("pocket_next")]


@pytest.fixture(scope="module")
def adapter():
    return load(WEIGHTS)


@pytest.fixture(scope="module")
def heldout():
    return held_out(16, "mini_gemini")


@pytest.fixture(scope="module")
def pictures(heldout):
    return [draw(scene)[0] for scene in heldout.scenes]


@pytest.fixture(scope="module")
def seen(adapter, heldout, pictures):
    return accuracy(adapter, pictures, heldout.questions)


def mean(scores: dict[str, float]) -> float:
    return sum(scores.values()) / len(scores)


def test_its_configuration_loads_through_the_auto_class():
    config = AutoConfig.from_pretrained(WEIGHTS)
    assert isinstance(config, MiniGeminiConfig)
    assert (config.image_size_aux, config.image_seq_length) == (672, 576)
    assert (WEIGHTS / "model.safetensors").stat().st_size < 10_000_000


@pytest.mark.parametrize("name", NEXT)
@pytest.mark.parametrize("budget", [64, 576])
def test_shared_prefix_answers_equal_plain_generate(adapter, name, budget, tmp_path):
    render(name, tmp_path / "data.parquet", 2)
    task = load_task(name, data=tmp_path / "data.parquet")
    questions = task.questions()
    first = {q.image_id: q for q in reversed(questions)}
    pictures = {image: task.image(q) for image, q in first.items()}
    records = adapter.encode(adapter.preprocess(list(pictures.values())), names=list(first))
    kept = records.compress("prunesid", budget=budget)
    shared = answer(adapter, kept, records.inputs, questions, batch_size=4)
    model = MiniGeminiForConditionalGeneration.from_pretrained(WEIGHTS, dtype=torch.float32)
    processor = MiniGeminiProcessor.from_pretrained(WEIGHTS)
    for question, found in zip(questions, shared, strict=True):
        alone = answer_plainly(adapter, kept, records.inputs[question.image_id], question)
        assert found.answer == alone
        assert found.tokens == budget
        if budget == 576:  # everything is kept, so this is the unmodified model
            prompt = CONVERSATIONS["vicuna_v1"].text(f"<image>\n{question.context}")
            inputs = processor([pictures[question.image_id]], prompt)
            output = model.generate(**inputs, max_new_tokens=8, do_sample=False)
            words = output[0, inputs["input_ids"].shape[1] :]
            assert processor.tokenizer.decode(words, skip_special_tokens=True) == alone


def test_details_need_the_second_tower(heldout, pictures, seen):
    silent = load(WEIGHTS)
    blurred = accuracy(silent, [coarse(p) for p in pictures], heldout.questions)
    silence(silent)
    silenced = accuracy(silent, pictures, heldout.questions)
    assert mean(seen) > mean(silenced) + 10
    # It is the tower that counts: details of half the resolution are enough for it.
    assert mean(seen) > 85 and abs(mean(seen) - mean(blurred)) < 5
    # There are few codes on these images; the card has the numbers of 200.
    assert seen["code"] > silenced["code"]


@torch.no_grad()
def test_coarse_pictures_look_alike_to_the_first_tower(adapter, pictures):
    sharp = adapter.preprocess(pictures[:2])
    blurred = adapter.preprocess([coarse(p) for p in pictures[:2]])
    rounding = 1 / 255 / 0.26
    assert (sharp["pixel_values"] - blurred["pixel_values"]).abs().max() < rounding
    assert (sharp["pixel_values_aux"] - blurred["pixel_values_aux"]).abs().max() > 10 * rounding


def test_windows_in_a_wrong_order_are_seen(adapter, heldout, pictures, seen, monkeypatch):
    right = mining.windows

    def column_by_column(cells, grid):
        return right(cells, grid).unflatten(1, (grid, grid)).transpose(1, 2).flatten(1, 2)

    monkeypatch.setattr(mining, "windows", column_by_column)
    assert mean(accuracy(adapter, pictures, heldout.questions)) < mean(seen) - 10


@torch.no_grad()
def test_wrong_positions_are_seen(heldout, pictures, seen):
    wrong = load(WEIGHTS)
    table = wrong.model.model.vision_tower.embeddings.position_embedding.weight
    table[1:] = table[1:].unflatten(0, (24, 24)).transpose(0, 1).flatten(0, 1)
    where = ("side", "spatial")
    found = accuracy(wrong, pictures, heldout.questions)
    assert mean({k: found[k] for k in where}) < mean({k: seen[k] for k in where}) - 10


def test_the_card_states_every_family():
    card = (WEIGHTS / "README.md").read_text()
    measured = json.loads((WEIGHTS / "card.json").read_text())
    for family in EVALUATED:
        assert f"| {family} |" in card
        for column in ("seen", "silenced", "coarse"):
            assert f"{measured[column][family]:.1f}" in card
