"""The shipped Pocket-LLaVA loads as any LLaVA, sees and answers alike in the engine and alone."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from prunesid.families import load
from prunesid.generate.engine import answer, answer_plainly
from prunesid.lmms.tasks import load_task
from prunesid.pocket import WEIGHTS
from prunesid.pocket.benchmarks import BENCHMARKS, items, render
from prunesid.pocket.drawing import draw
from prunesid.pocket.evaluate import accuracy, best_guess, held_out
from prunesid.pocket.questions import EVALUATED
from prunesid.pocket.training import packing, vision
from prunesid.pocket.training.schedule import Phase
from prunesid.pocket.video.clips import Film, moments

IMAGES = 3
OWN = [
    name for name in BENCHMARKS
    if not name.startswith(("pocket_next", "pocket_qwen", "pocket_video"))
]  # fmt: skip


@pytest.fixture(scope="module")
def adapter():
    return load(WEIGHTS)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pocket")
    for name in BENCHMARKS:
        render(name, folder / f"{name}.parquet", IMAGES)
    return folder


def test_it_loads_through_the_auto_classes():
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model = AutoModelForImageTextToText.from_pretrained(WEIGHTS, use_safetensors=True)
    processor = AutoProcessor.from_pretrained(WEIGHTS)
    picture = draw(held_out(1).scenes[0])[0]
    asked = [
        {
            "role": "user",
            "content": [{"type": "image"}, {"type": "text", "text": "what is the background ?"}],
        }
    ]
    prompt = processor.apply_chat_template(asked, add_generation_prompt=True)
    inputs = processor(images=picture, text=prompt, return_tensors="pt")
    assert (inputs["input_ids"] == model.config.image_token_id).sum() == 576
    output = model.generate(**inputs, max_new_tokens=4, do_sample=False)
    answered = processor.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert answered == held_out(1).scenes[0].background.style


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("budget", [64, 576])
def test_shared_prefix_answers_equal_plain_generate(adapter, data, name, budget):
    task = load_task(name, data=data / f"{name}.parquet")
    questions = task.questions()
    names = list(dict.fromkeys(q.image_id for q in questions))
    first = {q.image_id: q for q in reversed(questions)}
    inputs = adapter.preprocess([task.image(first[n]) for n in names])
    records = adapter.encode(inputs, names=names)
    kept = records.compress("prunesid", budget=budget)
    shared = answer(adapter, kept, records.inputs, questions, batch_size=4)
    for question, found in zip(questions, shared, strict=True):
        assert found.answer == answer_plainly(
            adapter, kept, records.inputs[question.image_id], question
        )
        assert found.tokens == budget


def test_it_sees_and_the_questions_need_the_image(adapter):
    heldout = held_out(24)
    pictures = [draw(scene)[0] for scene in heldout.scenes]
    seen = accuracy(adapter, pictures, heldout.questions)
    other = accuracy(adapter, pictures[1:] + pictures[:1], heldout.questions)
    for family in ("existence", "attribute", "side"):
        assert seen[family] > other[family] + 15, (family, seen[family], other[family])


def test_the_card_states_every_family():
    card = (WEIGHTS / "README.md").read_text()
    measured = json.loads((WEIGHTS / "card.json").read_text())
    for family in EVALUATED:
        assert f"| {family} |" in card
        assert f"{measured['seen'][family]:.1f}" in card


def test_the_best_guess_knows_the_wording_only():
    heldout = held_out(150)
    guess = best_guess(heldout.questions)
    assert set(guess) == set(EVALUATED)
    assert guess["existence"] < 60
    assert guess["code"] < 20


def _digests(scenes):
    pictures = (moments(s)[0] if isinstance(s, Film) else np.asarray(draw(s)[0]) for s in scenes)
    return {hashlib.sha256(picture.tobytes()).hexdigest() for picture in pictures}


def test_benchmarks_are_held_out_of_training():
    phase = Phase(24, 8, 1, 0.0)
    trained = set()
    for module, seed in ((vision, 1), (packing, 2)):
        for step in range(3):
            rng = np.random.default_rng([seed, phase.side, step])
            scenes = phase.scenes(rng)
            trained |= _digests(scenes)
            batch = module.batch_of(phase, seed, step)
            pixels = (batch if isinstance(batch, dict) else batch.images)["pixels"]
            assert torch.isfinite(pixels).all()
    shown = {}
    for name, chosen in BENCHMARKS.items():
        shown[name] = _digests(scene for _, scene, _ in items(chosen, 20))
        assert len(shown[name]) == 20
        assert not shown[name] & trained
    everything = [d for digests in shown.values() for d in digests]
    assert len(set(everything)) == len(everything)
    assert not set(everything) & _digests(held_out(20).scenes)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_rendering_is_deterministic_and_asks_several_questions(name, data, tmp_path):
    render(name, tmp_path / "again.parquet", IMAGES)
    table = pq.read_table(data / f"{name}.parquet")
    assert table.equals(pq.read_table(tmp_path / "again.parquet"))
    assert len(set(table["image_id"].to_pylist())) == IMAGES
    # The questions of the calibration set are never asked.
    assert name == "pocket_calibration" or table.num_rows >= 2 * IMAGES
    if name.endswith("_mme"):
        pairs: dict[tuple[str, str], list[str]] = {}
        for row in table.select(["image_id", "category", "answer"]).to_pylist():
            pairs.setdefault((row["image_id"], row["category"]), []).append(row["answer"])
        assert all(sorted(answers) == ["no", "yes"] for answers in pairs.values())
    with pytest.raises(ValueError, match="choose from pocket_pope"):
        render("pocket_vqa", tmp_path / "x.parquet")
