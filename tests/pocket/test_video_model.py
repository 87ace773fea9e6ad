"""The shipped Pocket-Video-LLaVA sees what happens in a clip, and notices the order of frames."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from builders.pocket_models import asked_both_ways, mean
from transformers import AutoModelForImageTextToText

from prunesid.families import load
from prunesid.generate.engine import answer
from prunesid.pocket.benchmarks import BENCHMARKS
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
    for shared, alone in asked_both_ways(adapter, name, budget, tmp_path):
        assert shared.answer == alone


def test_one_frame_does_not_do(adapter, heldout, clips, seen):
    still = accuracy(adapter, [middle(clip) for clip in clips], heldout.questions)
    assert mean(seen) > mean(still) + 20


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
    assert mean(found, IN_TIME) < mean(seen, IN_TIME) - 10


def test_the_card_states_every_family():
    card = (WEIGHTS / "README.md").read_text()
    measured = json.loads((WEIGHTS / "card.json").read_text())
    for family in FAMILIES:
        assert f"| {family} |" in card
        for column in ("seen", "middle", "shuffled", "gray", "other"):
            assert f"{measured[column][family]:.1f}" in card
    assert np.mean(list(measured["seen"].values())) >= 85
