"""Answers of late arms: those of the engine if all is kept, and alike in any batch and mode."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from builders.tiny_llava import random_images
from transformers import AutoModelForImageTextToText

from prunesid import families
from prunesid.core.costs import Transformer, account
from prunesid.core.needs import Needs
from prunesid.core.questions import Question
from prunesid.core.record import Kept
from prunesid.generate import engine
from prunesid.generate import late as late_answers
from prunesid.generate.decoder_pass import MODES
from prunesid.generate.late import answer_late
from prunesid.pocket import WEIGHTS

CONTEXTS = (
    "is there a red circle ?",
    "how many bars are taller than 3 ? A 1 B 2 C 3 D 4",
    "what color is the star ?",
    "how many ?",
)
# Budgets that 16 tokens and 3 layers allow.
ARMS = {
    "fastv": (9, {}),
    "dart": (10, {"image_pivots": 1, "text_pivots": 1}),
    "sparsevlm": (11, {}),
    "mustdrop": (9, {"rule": "budget"}),
}


@pytest.fixture(scope="module")
def adapter(tiny_llava):
    return families.load(tiny_llava)


@pytest.fixture(scope="module")
def records(adapter):
    ids = [f"image {number}" for number in range(5)]
    pixels = adapter.preprocess(random_images(5))
    return adapter.encode(pixels, Needs(last_cls_attention=True), ids)


def questions_of(records, **gen_kwargs):
    return [
        Question(f"{image}/{number}", image, context, {"max_new_tokens": 5, **gen_kwargs})
        for number, context in enumerate(CONTEXTS)
        for image in records.names
    ]


def ask(adapter, records, method, kept=None, questions=None, **more):
    budget, params = ARMS[method]
    return answer_late(
        adapter,
        kept or records.all_tokens(),
        records.inputs,
        questions or questions_of(records),
        method,
        **{"budget": budget, "params": params, "cls_attention": attention_of(records), **more},
    )


def attention_of(records, kept=None):
    return records.gather((kept or records.all_tokens()).index, "last_cls_attention")


@pytest.mark.parametrize("method", ARMS)
@pytest.mark.parametrize("mode", MODES)
def test_with_everything_kept_the_answers_are_the_engines(adapter, records, method, mode):
    expected = engine.answer(adapter, records.all_tokens(), records.inputs, questions_of(records))
    found = ask(adapter, records, method, mode=mode, budget=16, batch_size=7)
    inside = {"entering": (16,) * 3, "cached": (16,) * 3, "selection_macs": 0}
    inside["left"] = (bytes([3] * 16),)
    assert found.answers == [replace(answer, **inside) for answer in expected]
    assert torch.equal(found.entering, torch.full((20, 3), 16))


@pytest.mark.parametrize("method", ARMS)
def test_answers_do_not_depend_on_batch_or_mode(adapter, records, method):
    expected = ask(adapter, records, method, batch_size=1)
    assert [a.question_id for a in expected.answers] == [q.id for q in questions_of(records)]
    assert expected.entering.double().mean() == pytest.approx(ARMS[method][0], abs=1)
    assert (expected.selection_macs > 0).all()
    full = engine.answer(adapter, records.all_tokens(), records.inputs, questions_of(records))
    assert [a.answer for a in full] != [a.answer for a in expected.answers]
    for mode in MODES:
        for batch_size in (3, 8, 100):
            found = ask(adapter, records, method, mode=mode, batch_size=batch_size)
            assert found.answers == expected.answers
            for name in ("entering", "cached", "text", "selection_macs"):
                assert torch.equal(getattr(found, name), getattr(expected, name))


@pytest.mark.parametrize("method", ["fastv", "dart"])
def test_it_is_known_which_patches_are_left_in_each_layer(adapter, records, method):
    whole = ask(adapter, records, method)
    # An early method that keeps some patches, of which the question leaves fewer.
    few = records.compress("grid", budget=9)
    attention = attention_of(records, few)
    own = ask(adapter, records, method, kept=few, budget=8, cls_attention=attention)
    for found in (whole, own):
        for answer in found.answers:
            (layers,) = answer.left
            entering = [sum(each > layer for each in layers) for layer in range(3)]
            assert tuple(entering) == answer.entering
    assert {p for p, n in enumerate(own.answers[0].left[0]) if n} == set(few.index[0].tolist())
    assert len({answer.left for answer in whole.answers}) > 1


def test_images_of_different_counts(adapter, records):
    kept = records.all_tokens()
    kept = Kept(kept.tokens, kept.index, torch.tensor([16, 12, 16, 9, 12]))
    found = ask(adapter, records, "fastv", kept=kept)
    assert found.entering[:5, 0].tolist() == [16, 12, 16, 9, 12]
    assert [a.tokens for a in found.answers] == found.entering.double().mean(dim=1).tolist()
    assert found.entering[3].tolist() == [9, 9, 9]
    assert found.entering[1].tolist() == [12, 8, 8]
    alone = Kept(kept.tokens[1:2, :12], kept.index[1:2, :12], kept.count[1:2])
    first = [q for q in questions_of(records) if q.image_id == "image 1"]
    one = {"image 1": records.inputs["image 0"]}
    again = answer_late(adapter, alone, one, first, "fastv", budget=9)
    assert again.answers == [a for a in found.answers if a.image_id == "image 1"]


def test_mustdrop_keeps_what_eager_attention_of_the_last_block_says(
    adapter, tiny_llava, records, monkeypatch
):
    """The ceil(0.3 x 16) = 5 tokens of the highest mean over heads, if no other token passes."""
    eager = AutoModelForImageTextToText.from_pretrained(tiny_llava, attn_implementation="eager")
    pixels = adapter.preprocess(random_images(5))["pixel_values"]
    with torch.no_grad():
        maps = eager.model.vision_tower(pixels, output_attentions=True).attentions
    expected = maps[-1][:, :, 0, 1:].mean(dim=1).topk(5).indices.sort().values.tolist()
    states, run = [], late_answers.prefill_shared
    monkeypatch.setattr(
        late_answers, "prefill_shared", lambda *a, **g: states.append(run(*a, **g)) or states[-1]
    )
    nothing = {"global_threshold": 1e9, "individual_threshold": 1e9, "key_share": 0.3}
    found = ask(adapter, records, "mustdrop", budget=None, params=nothing, batch_size=1)
    by_image = {}
    for state, row in zip(states, sorted(range(20), key=lambda place: place % 5), strict=True):
        by_image.setdefault(row % 5, []).append(state.kept[-1][0].tolist())
    assert by_image == {image: [own] * 4 for image, own in enumerate(expected)}
    assert found.entering[:, -1].tolist() == [5] * 20


def test_attention_follows_what_an_early_method_keeps(adapter, records):
    kept = records.compress("grid", budget=9)
    attention = attention_of(records, kept)
    own = records.single.last_cls_attention.gather(1, kept.index)
    assert torch.equal(attention, own)
    found = ask(adapter, records, "mustdrop", kept=kept, budget=7, cls_attention=attention)
    assert set(found.entering[:, 0].tolist()) == {9}


def test_answers_end_where_they_should(adapter, records):
    long = ask(adapter, records, "fastv")
    short = ask(adapter, records, "fastv", questions=questions_of(records, max_new_tokens=1))
    for one, other in zip(short.answers, long.answers, strict=True):
        assert other.answer.startswith(one.answer)
    until = long.answers[0].answer.split()[1]
    cut = ask(adapter, records, "fastv", questions=questions_of(records, until=[until]))
    assert cut.answers[0].answer == long.answers[0].answer.split(until)[0].strip()


def test_progress_and_errors(adapter, records):
    told = []
    ask(adapter, records, "fastv", progress=told.append, batch_size=6)
    assert sum(told) == 20
    with pytest.raises(ValueError, match="mustdrop needs cls_attention; key_share=0 does without"):
        ask(adapter, records, "mustdrop", cls_attention=None)
    with pytest.raises(ValueError, match="'image 9' was not kept"):
        ask(adapter, records, "fastv", questions=[Question("1", "image 9", CONTEXTS[0])])
    with pytest.raises(ValueError, match="smallest possible budget is 6"):
        ask(adapter, records, "fastv", budget=5)
    with pytest.raises(ValueError, match="batch_size"):
        ask(adapter, records, "fastv", batch_size=0)
    with pytest.raises(ValueError, match="inputs of 4 crops for 5 rows"):
        answer_late(
            adapter,
            records.all_tokens(),
            dict(list(records.inputs.items())[:4]),
            [],
            "fastv",
            budget=9,
        )


@pytest.mark.parametrize("method", ARMS)
def test_pocket_llava_end_to_end(method):
    adapter = families.load(WEIGHTS)
    pixels = adapter.preprocess(random_images(1, size=336))
    records = adapter.encode(pixels, Needs(last_cls_attention=True), ["one"])
    questions = [
        Question("0", "one", "Is there a red circle in the image ?", {"max_new_tokens": 4}),
        Question("1", "one", "What color is the star ?", {"max_new_tokens": 4}),
    ]
    params = {"rule": "budget"} if method == "mustdrop" else {}
    found = [
        answer_late(
            adapter, records.all_tokens(), records.inputs, questions, method, budget=150,
            params=params, cls_attention=attention_of(records), mode=mode, batch_size=size,
        )
        for mode, size in (("latency", 1), ("accuracy", 2))
    ]  # fmt: skip
    assert found[0].answers == found[1].answers
    assert torch.equal(found[0].entering, found[1].entering)
    assert found[0].entering[:, 0].tolist() == [576, 576]
    assert found[0].entering.double().mean() == pytest.approx(150, abs=4)
    size = Transformer.decoder(adapter.decoder.config)
    text = int(found[0].text[0])
    cost = account(size, found[0].entering[0].tolist(), text)
    whole = account(size, [576] * 6, text)
    assert 0.15 < cost.llm_macs / whole.llm_macs < 0.35
