"""Late methods on Qwen2-VL and Qwen2.5-VL: images of any size, clips, several of them, none."""

from __future__ import annotations

import math

import pytest
import torch
from builders.qwen_models import QUESTION, asked, kinds_of, save_tiny_qwen, shown
from transformers import AutoModelForImageTextToText

from prunesid import families
from prunesid.core.needs import Needs
from prunesid.core.questions import Question
from prunesid.families.adapter import around, positions_of
from prunesid.generate import engine
from prunesid.generate.columns import AFTER, BEFORE, VISUAL, Columns
from prunesid.generate.decoder_pass import MODES, prefill
from prunesid.generate.late import answer_late
from prunesid.methods import decoder
from prunesid.methods.decoder import DecoderShape, Schedule
from prunesid.methods.decoder.schedule import Choice, Stage

CONTEXTS = (QUESTION, "how many bars are taller than 3 ? A 1 B 2", "what color is the star ?")
STEPS = 4
# Budgets per image or clip that 3 layers allow for 36 tokens.
ARMS = {
    "fastv": (15, {}),
    "dart": (16, {"image_pivots": 1, "text_pivots": 1}),
    "sparsevlm": (16, {}),
    "mustdrop": (15, {"rule": "budget", "key_share": 0}),
}


@pytest.fixture(scope="module", params=["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def folder(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    save_tiny_qwen(folder, request.param)
    return folder


@pytest.fixture(scope="module")
def adapter(folder):
    return families.load(folder)


@pytest.fixture(scope="module")
def plain(folder):
    return AutoModelForImageTextToText.from_pretrained(folder).eval()


@pytest.fixture(scope="module")
def records(adapter):
    names = [name for name, media in shown().items() for _ in media]
    media = [medium for own in shown().values() for medium in own]
    needs = Needs(last_cls_attention=True)
    return adapter.encode(adapter.preprocess(media), needs, names)


def whole(adapter, entering, prompt):
    """The columns of one whole prompt."""
    texts = around(prompt.texts, entering)
    parts = [adapter.embed(torch.tensor(texts[0]))]
    kinds = [BEFORE] * len(texts[0])
    for number, (medium, text) in enumerate(zip(entering, texts[1:], strict=True), 2):
        parts += [medium.embeddings, adapter.embed(torch.tensor(text))]
        kinds += [VISUAL] * len(medium)
        kinds += [AFTER if number == len(texts) else BEFORE] * len(text)
    positions, _ = positions_of(list(map(len, texts)), entering)
    return Columns.of(torch.cat(parts)[None], torch.tensor([kinds]), positions.T[None])


def decoded(adapter, state):
    """Greedy ids up to the end token."""
    ids, hidden = [], state.last
    while len(ids) < STEPS:
        token = adapter.logits(hidden).argmax(-1)
        if int(token) in adapter.end_ids:
            break
        ids.append(int(token))
        hidden = state.advance(adapter.embed(token))
    return ids


def questions_of(inputs):
    return [
        Question(
            f"{name}/{number}", name, CONTEXTS[(number + place) % 3], {"max_new_tokens": STEPS}
        )
        for place, name in enumerate(inputs)
        for number in range(1 + (place + 2) % 3)
    ]


def ask(adapter, kept, inputs, method, **more):
    budget, params = ARMS[method]
    given = {"budget": budget, "params": params, **more}
    return answer_late(adapter, kept, inputs, questions_of(inputs), method, **given)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", list(shown()))
def test_with_everything_kept_the_logits_are_the_models_own(adapter, plain, records, name, mode):
    media = shown()[name]
    inputs = asked(adapter, media)
    with torch.no_grad():
        expected = plain(**inputs).logits[0]
    prompt = adapter.prompt(QUESTION, kinds_of(media))
    entering = engine.enter(adapter, records.all_tokens(), records.inputs[name])
    columns = whole(adapter, entering, prompt)

    def everything(view):
        return Choice(torch.arange(len(view.hidden)))

    for schedule in (Schedule(), Schedule((Stage(0, everything), Stage(1, everything)))):
        state = prefill(adapter.decoder, columns, schedule, mode=mode)
        found = adapter.logits(state.columns.hidden[0])
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
        generated = plain.generate(**inputs, do_sample=False, max_new_tokens=STEPS)
        ids = generated[0, inputs["input_ids"].shape[1] :].tolist()
        ends = [place for place, token in enumerate(ids) if token in adapter.end_ids]
        assert decoded(adapter, state) == (ids[: ends[0]] if ends else ids)


@pytest.mark.parametrize("method", ARMS)
def test_with_everything_kept_the_answers_are_the_engines(adapter, records, method):
    inputs = {**records.inputs, "nothing": ()}
    expected = engine.answer(adapter, records.all_tokens(), inputs, questions_of(inputs))
    found = ask(adapter, records.all_tokens(), inputs, method, budget=40, batch_size=5)
    for name in ("question_id", "answer", "tokens", "text"):
        assert [getattr(a, name) for a in found.answers] == [getattr(a, name) for a in expected]
    assert len({a.answer for a in expected}) > 8


@pytest.mark.parametrize("method", ARMS)
def test_answers_are_those_of_whole_prompts_in_any_batch_and_mode(adapter, records, method):
    inputs, kept = {**records.inputs, "nothing": ()}, records.all_tokens()
    expected = ask(adapter, kept, inputs, method, batch_size=1)
    budget, params = ARMS[method]
    for question, answer in zip(questions_of(inputs), expected.answers, strict=True):
        media = inputs[question.image_id]
        prompt = adapter.prompt(question.context, [medium.kind for medium in media])
        if not media:
            assert answer.tokens == 0
            continue
        entering = engine.enter(adapter, kept, media)
        count = sum(map(len, entering))
        schedule = decoder.plan(
            method, DecoderShape(3, count, axes=3), budget * len(media), **params
        )
        state = prefill(adapter.decoder, whole(adapter, entering, prompt), schedule)
        assert answer.answer == adapter.decode(decoded(adapter, state))
        assert answer.entering == tuple(state.entering[0].tolist())
        assert answer.tokens <= budget * len(media) + 1
    full = engine.answer(adapter, kept, inputs, questions_of(inputs))
    assert [a.answer for a in full] != [a.answer for a in expected.answers]
    for mode in MODES:
        for batch_size in (3, 100):
            found = ask(adapter, kept, inputs, method, mode=mode, batch_size=batch_size)
            assert found.answers == expected.answers


def test_the_key_set_is_chosen_among_all_media_of_a_question(adapter, records):
    """MustDrop's choice, by received attention: these towers have no CLS token."""
    kept = records.all_tokens()
    attention = records.gather(kept.index, "last_cls_attention")
    given = {"params": {"rule": "budget", "key_share": 0.2}, "budget": 24}
    expected = ask(
        adapter, kept, records.inputs, "mustdrop", batch_size=1, cls_attention=attention, **given
    )
    for question, answer in zip(questions_of(records.inputs), expected.answers, strict=True):
        media = records.inputs[question.image_id]
        prompt = adapter.prompt(question.context, [medium.kind for medium in media])
        entering = engine.enter(adapter, kept, media)
        rows = [row for medium in media for row in medium.rows]
        own = torch.cat([attention[row, : int(kept.count[row])] for row in rows])
        schedule = decoder.plan(
            "mustdrop",
            DecoderShape(3, len(own), axes=3),
            given["budget"] * len(media),
            **given["params"],
        )
        state = prefill(
            adapter.decoder, whole(adapter, entering, prompt), schedule, cls_attention=own[None]
        )
        assert answer.answer == adapter.decode(decoded(adapter, state))
        if schedule.stages:
            top = own.argsort(descending=True, stable=True)[: math.ceil(0.2 * len(own))]
            assert set(top.tolist()) <= set(state.kept[-1][0].tolist())
    for mode in MODES:
        found = ask(
            adapter, kept, records.inputs, "mustdrop", batch_size=3, mode=mode,
            cls_attention=attention, **given,
        )  # fmt: skip
        assert found.answers == expected.answers


def test_what_a_budget_cannot_meet_is_said_before_any_answer(adapter, records):
    told: list[int] = []
    media = adapter.preprocess(shown()["two images"])
    two = adapter.encode(media, names=["two images"] * 2)
    with pytest.raises(ValueError, match="^2 images or clips, whose budgets add up: budget 6: "):
        ask(adapter, two.all_tokens(), two.inputs, "fastv", budget=3)
    # The largest is the clip of 36 tokens.
    with pytest.raises(ValueError, match="all 36 tokens.*smallest possible budget is 13"):
        ask(adapter, records.all_tokens(), records.inputs, "fastv", budget=3, progress=told.append)
    with pytest.raises(ValueError, match="'renumbered' has no meaning"):
        ask(
            adapter,
            records.all_tokens(),
            records.inputs,
            "sparsevlm",
            params={"positions": "renumbered"},
        )
    assert not told
