"""Late methods on every model family: an image or a clip, two of them, none."""

from __future__ import annotations

import pytest
from builders.family_models import FAMILIES
from builders.tiny_llava import random_images
from builders.video_llava_models import clip

from prunesid import families
from prunesid.core.questions import Question
from prunesid.generate import engine
from prunesid.generate.decoder_pass import MODES
from prunesid.generate.late import answer_late
from prunesid.images.medium import IMAGE, VIDEO

CASES = [(family, IMAGE) for family in FAMILIES] + [
    (family, VIDEO)
    for family in (
        "internvl",
        "llava_onevision",
        "qwen2_vl",
        "qwen2_5_vl",
        "qwen3_vl",
        "video_llava",
    )
]
CONTEXTS = ("is there a red circle ?", "how many bars are taller than 3 ? A 1 B 2")


@pytest.mark.parametrize(("family", "kind"), CASES)
def test_any_number_of_media(family, kind, tiny_llava, tmp_path):
    FAMILIES[family](tmp_path / "model", tiny_llava)
    adapter = families.load(tmp_path / "model")
    media = random_images(3, size=84) if kind == IMAGE else [clip(seed) for seed in range(3)]
    records = adapter.encode(adapter.preprocess(media), names=["one", "two", "two"])
    inputs, kept = {**records.inputs, "nothing": ()}, records.all_tokens()
    questions = [
        Question(f"{name}/{number}", name, context, {"max_new_tokens": 4})
        for number, context in enumerate(CONTEXTS)
        for name in inputs
    ]
    whole = engine.answer(adapter, kept, inputs, questions)
    same = answer_late(adapter, kept, inputs, questions, "fastv", budget=1000)
    assert [each.answer for each in same.answers] == [each.answer for each in whole]
    assert [each.tokens for each in same.answers] == [each.tokens for each in whole]
    # Three layers, the first of which sees all.
    most = max(
        sum(map(len, engine.enter(adapter, kept, own))) // len(own)
        for own in inputs.values()
        if own
    )
    for method in ("fastv", "sparsevlm"):
        given = {"budget": round(0.6 * most)}
        expected = answer_late(adapter, kept, inputs, questions, method, batch_size=1, **given)
        for answer, full in zip(expected.answers, whole, strict=True):
            share = len(inputs[answer.image_id])
            assert answer.text == full.text
            assert answer.tokens == pytest.approx(min(full.tokens, given["budget"] * share), abs=2)
            crops = sum(len(medium.rows) for medium in inputs[answer.image_id])
            assert answer.left is None or len(answer.left) == crops > 0
            if answer.left is not None and method == "fastv":
                seen = b"".join(answer.left)
                most_left = [sum(each > layer for each in seen) for layer in range(3)]
                assert all(a <= b for a, b in zip(most_left, answer.entering, strict=True))
        for mode in MODES:
            found = answer_late(adapter, kept, inputs, questions, method, mode=mode, **given)
            assert found.answers == expected.answers
