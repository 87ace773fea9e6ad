"""The shipped Pocket-Video-LLaVA sees what happens in a clip, and notices the order of frames."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoModelForImageTextToText

from prunesid.families import load
from prunesid.generate.engine import answer, answer_plainly
from prunesid.lmms.tasks import load_task
from prunesid.pocket.benchmarks import BENCHMARKS, render
from prunesid.pocket.evaluate import accuracy, held_out, middle, shown, shuffled
from prunesid.pocket.video import WEIGHTS
from prunesid.pocket.video.clips import MOMENTS
from prunesid.pocket.video.questions import FAMILIES
from prunesid.pocket.video.steps import FRAME, TOKENS

VIDEO = [name for name in BENCHMARKS if name.startswith("pocket_video")]
IN_TIME = tuple(name for name in FAMILIES if name != "attribute")


@pytest.fixture(scope="module")
def adapter():
    return load(WEIGHTS)


@pytest.fixture(scope="module")
def heldout():
    return held_out(24, "video_llava")


@pytest.fixture(scope="module")
def clips(heldout):
    return [shown(film) for film in heldout.scenes]


@pytest.fixture(scope="module")
def seen(adapter, heldout, clips):
    return accuracy(adapter, clips, heldout.questions)


def mean(scores: dict[str, float], families: tuple[str, ...] = IN_TIME) -> float:
    return sum(scores[name] for name in families) / len(families)


@torch.no_grad()
def test_everything_kept_is_the_unmodified_model(adapter, heldout, clips):
    model = AutoModelForImageTextToText.from_pretrained(
        WEIGHTS, use_safetensors=True, dtype=torch.float32
    )
    tokenizer = adapter.processor.tokenizer
    for number in range(4):
        inputs = adapter.preprocess([clips[number]])
        records = adapter.encode(inputs, names=["clip"])
        for question in heldout.questions[number][:3]:
            text = f"USER: {'<video> ' * TOKENS}{question.prompt} ASSISTANT:"
            tokens = tokenizer(text, return_tensors="pt")
            output = model.generate(**tokens, **inputs, max_new_tokens=6, do_sample=False)
            alone = tokenizer.decode(
                output[0, tokens["input_ids"].shape[1] :], skip_special_tokens=True
            )
            asked = _asked(question, "clip")
            (found,) = answer(adapter, records.all_tokens(), records.inputs, [asked], batch_size=1)
            assert found.answer == alone.strip()


def _asked(question, name):
    from prunesid.core.questions import Question

    return Question("0", name, question.prompt, {"max_new_tokens": 6})


@pytest.mark.parametrize("name", VIDEO)
@pytest.mark.parametrize("budget", [136, 2048])
def test_shared_prefix_answers_equal_plain_generate(adapter, name, budget, tmp_path):
    render(name, tmp_path / "data.parquet", 2)
    task = load_task(name, data=tmp_path / "data.parquet")
    questions = task.questions()
    first = {q.image_id: q for q in reversed(questions)}
    inputs = adapter.preprocess([medium for q in first.values() for medium in task.media(q)])
    records = adapter.encode(inputs, names=list(first))
    kept = records.compress("prunesid", budget=budget)
    shared = answer(adapter, kept, records.inputs, questions, batch_size=4)
    for question, found in zip(questions, shared, strict=True):
        alone = answer_plainly(adapter, kept, records.inputs[question.image_id], question)
        assert found.answer == alone


def test_one_frame_does_not_do(adapter, heldout, clips, seen):
    still = accuracy(adapter, [middle(clip) for clip in clips], heldout.questions)
    assert mean(seen, FAMILIES) > mean(still, FAMILIES) + 20


def test_the_order_of_frames_is_seen(adapter, heldout, clips, seen):
    others = [shuffled(clip, number) for number, clip in enumerate(clips)]
    found = accuracy(adapter, others, heldout.questions)
    # Which of three came first, second or last, and which of two came before: 42 % by guessing.
    assert found["order"] < 60 < seen["order"]
    assert found["attribute"] > seen["attribute"] - 10


def backward(tokens: torch.Tensor) -> torch.Tensor:
    """The frames from the last to the first."""
    return tokens.view(MOMENTS, FRAME, -1).flip(0).flatten(0, 1)


def column_by_column(tokens: torch.Tensor) -> torch.Tensor:
    """Each frame's place in time taken by its tokens' place in space."""
    return tokens.view(MOMENTS, FRAME, -1).transpose(0, 1).flatten(0, 1)


@pytest.mark.parametrize("broken", [backward, column_by_column])
def test_a_wrong_order_of_tokens_is_seen(adapter, heldout, clips, seen, broken, monkeypatch):
    enter = adapter.enter

    def wrong(crops, medium):
        found = enter(crops, medium)
        return replace(found, embeddings=broken(found.embeddings))

    monkeypatch.setattr(adapter, "enter", wrong)
    found = accuracy(adapter, clips, heldout.questions)
    assert mean(found) < mean(seen) - 10


def test_the_card_states_every_family():
    card = (WEIGHTS / "README.md").read_text()
    measured = json.loads((WEIGHTS / "card.json").read_text())
    for family in FAMILIES:
        assert f"| {family} |" in card
        for column in ("seen", "middle", "shuffled", "gray", "other"):
            assert f"{measured[column][family]:.1f}" in card
    assert np.mean(list(measured["seen"].values())) >= 85
