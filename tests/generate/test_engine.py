"""Shared-prefix answers against plain `generate()`, one question at a time."""

from __future__ import annotations

import pytest
import torch
from builders.tiny_llava import random_images

from prunesid import families
from prunesid.core.questions import Question, Stopping
from prunesid.core.record import Kept
from prunesid.generate import engine
from prunesid.generate.prefix import NOBODY, SHARED, attention_mask, pack

CONTEXTS = (
    "is there a red circle ?",
    "how many bars are taller than 3 ? A 1 B 2 C 3 D 4",
    "what color is the star ?",
    "is the blue square left of the green circle ?",
    "how many ?",
)


@pytest.fixture(scope="module")
def adapter(tiny_llava):
    return families.load(tiny_llava)


@pytest.fixture(scope="module")
def records(adapter):
    ids = [f"image {number}" for number in range(7)]
    return adapter.encode(adapter.preprocess(random_images(7)), names=ids)


def kept_of(records, counts):
    """The first `count` tokens of each image, padded with values that would change answers."""
    record = records.single
    tokens = torch.full((len(record), max(counts), record.features.shape[2]), 99.0)
    for row, count in enumerate(counts):
        tokens[row, :count] = record.features[row, :count]
    index = torch.arange(max(counts)).expand(len(record), -1)
    return Kept(tokens=tokens, index=index, count=torch.tensor(counts))


def questions_of(records, per_image=None, **gen_kwargs):
    gen_kwargs = {"max_new_tokens": 6, **gen_kwargs}
    return [
        Question(f"{image}/{number}", image, CONTEXTS[(number + row) % len(CONTEXTS)], gen_kwargs)
        for row, image in enumerate(records.names)
        for number in range(len(CONTEXTS) if per_image is None else per_image[row])
    ]


def plainly(adapter, kept, records, questions):
    return [
        engine.answer_plainly(adapter, kept, records.inputs[question.image_id], question)
        for question in questions
    ]


@pytest.mark.parametrize("counts", [[16] * 7, [5] * 7, [3, 16, 1, 9, 5, 16, 12]])
def test_answers_equal_generate_one_question_at_a_time(adapter, records, counts):
    kept, questions = kept_of(records, counts), questions_of(records)
    answers = engine.answer(adapter, kept, records.inputs, questions, batch_size=4)
    assert [each.answer for each in answers] == plainly(adapter, kept, records, questions)
    assert [each.question_id for each in answers] == [each.id for each in questions]
    assert [each.tokens for each in answers] == [count for count in counts for _ in CONTEXTS]
    assert len({each.answer for each in answers}) > 10


def test_answers_do_not_depend_on_the_batch(adapter, records):
    kept = kept_of(records, [3, 16, 1, 9, 5, 16, 12])
    questions = questions_of(records, per_image=[5, 0, 1, 3, 2, 5, 4])
    expected = engine.answer(adapter, kept, records.inputs, questions, batch_size=1)
    for batch_size in (2, 3, 7, 100):
        found = engine.answer(adapter, kept, records.inputs, questions, batch_size=batch_size)
        assert found == expected
    backwards = engine.answer(adapter, kept, records.inputs, questions[::-1], batch_size=3)
    assert backwards[::-1] == expected


def test_many_questions_are_cut_into_packs(adapter, records, monkeypatch):
    kept = kept_of(records, [3, 16, 1, 9, 5, 16, 12])
    questions = questions_of(records, per_image=[5, 0, 1, 3, 2, 5, 4])
    expected = engine.answer(adapter, kept, records.inputs, questions, batch_size=3)
    for room in (1, 12, 30):
        monkeypatch.setattr(engine, "PACKED_TOKENS", room)
        assert engine.answer(adapter, kept, records.inputs, questions, batch_size=3) == expected


def test_texts_before_the_image_may_differ(adapter, records):
    kept = kept_of(records, [6] * 7)
    questions = [
        Question(f"{image} {number}", image, f"{text} <image> what color ?", {"max_new_tokens": 4})
        for image in records.names
        for number, text in enumerate(("", "is there a red circle ?"))
    ]
    answers = engine.answer(adapter, kept, records.inputs, questions, batch_size=4)
    assert [each.answer for each in answers] == plainly(adapter, kept, records, questions)


def test_several_images_of_a_question_and_none(adapter):
    pixels = adapter.preprocess(random_images(4))
    records = adapter.encode(pixels, names=["pair", "pair", "one", "other"])
    inputs = {**records.inputs, "nothing": ()}
    kept = records.compress("grid", budget=5)
    texts = {
        "pair": ("what color ?", "<image> is there a star ? <image> how many ?"),
        "one": ("what color ?",),
        "nothing": ("what color is the star ?", "how many ?"),
        "other": ("how many bars ?",),
    }
    questions = [
        Question(f"{name}/{n}", name, text, {"max_new_tokens": 5})
        for name, own in texts.items()
        for n, text in enumerate(own)
    ]
    for batch_size in (1, 2, 4):
        found = engine.answer(adapter, kept, inputs, questions, batch_size=batch_size)
        assert [each.tokens for each in found] == [10, 10, 5, 0, 0, 5]
        assert [each.answer for each in found] == [
            engine.answer_plainly(adapter, kept, inputs[q.image_id], q) for q in questions
        ]
    alone = engine.answer(adapter, Kept.nothing(), {"nothing": ()}, questions[3:5])
    assert [each.answer for each in alone] == [each.answer for each in found[3:5]]


def test_generation_arguments_are_followed_per_question(adapter, records):
    kept = kept_of(records, [8] * 7)
    lengths = [1, 2, 9, 4, 3, 7, 5]
    questions = [
        Question(image, image, CONTEXTS[0], {"max_new_tokens": length, "until": ["a", "\n\n"]})
        for image, length in zip(records.names, lengths, strict=True)
    ]
    answers = engine.answer(adapter, kept, records.inputs, questions)
    assert [each.answer for each in answers] == plainly(adapter, kept, records, questions)
    assert not any("a" in each.answer for each in answers)


def test_an_end_token_ends_an_answer(adapter, records):
    kept, questions = kept_of(records, [16] * 7), questions_of(records, max_new_tokens=12)
    answers = engine.answer(adapter, kept, records.inputs, questions)
    assert len({len(each.answer.split()) for each in answers}) > 2


def test_progress_counts_questions(adapter, records):
    kept, questions = kept_of(records, [4] * 7), questions_of(records)
    seen: list[int] = []
    engine.answer(adapter, kept, records.inputs, questions, batch_size=3, progress=seen.append)
    assert seen == [15, 15, 5]


def test_bad_requests_are_refused(adapter, records):
    kept = kept_of(records, [4] * 7)
    with pytest.raises(ValueError, match="image 'other' was not kept"):
        engine.answer(adapter, kept, records.inputs, [Question("0", "other", "how many ?")])
    with pytest.raises(ValueError, match="batch_size"):
        engine.answer(adapter, kept, records.inputs, [], batch_size=0)
    with pytest.raises(ValueError, match="inputs of 1 crops for 7"):
        one = {"a": records.inputs["image 0"]}
        engine.answer(adapter, kept, one, [])


@pytest.mark.parametrize(
    "gen_kwargs",
    [{"do_sample": True}, {"temperature": 0.7}, {"num_beams": 3}, {"max_new_tokens": -1}, {"x": 1}],
)
def test_anything_but_greedy_decoding_is_refused(gen_kwargs):
    with pytest.raises(ValueError, match=r"greedy|max_new_tokens|unknown"):
        Stopping.of(gen_kwargs)


def test_generation_arguments_of_lmms_eval_are_understood():
    stopping = Stopping.of(
        {
            "max_new_tokens": 128,
            "temperature": 0.0,
            "top_p": 1.0,
            "num_beams": 1,
            "do_sample": False,
            "until": ["\n\n"],
        }
    )
    assert stopping == Stopping(128, ("\n\n",))
    assert stopping.cut(" yes \n\n no") == "yes"
    assert Stopping.of({"until": "."}).until == (".",)


def test_a_token_sees_the_prefix_and_its_own_question_only():
    packed = pack([[[7, 8], [9]], [[5]]], [[4, 4], [2]])
    assert packed.ids.tolist() == [[7, 8, 9], [5, 0, 0]]
    assert packed.positions.tolist() == [[4, 5, 4], [2, 0, 0]]
    assert packed.last == [[1, 2], [0]]
    cached = torch.tensor([[SHARED, SHARED], [SHARED, NOBODY]])
    seen = attention_mask(packed.owners, cached, torch.float32)[:, 0] == 0
    assert seen[0].int().tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 0, 0, 1]]
    assert seen[1, 0].int().tolist() == [1, 0, 1, 0, 0]
    assert seen.any(-1).all()
