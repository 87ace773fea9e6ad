"""Clocked requests: the answers are the model's own, alone and in batches, and arms take turns."""

from __future__ import annotations

import pytest
import torch
from builders.family_models import FAMILIES
from builders.tiny_llava import random_images
from builders.video_llava_models import clip

from prunesid import families
from prunesid.core.costs import STATIONS
from prunesid.core.questions import Question
from prunesid.families.declared import families_of
from prunesid.generate.engine import enter
from prunesid.generate.late import answer_late
from prunesid.generate.latency import measure
from prunesid.generate.stations import Pruning, Request, serve
from prunesid.images.medium import IMAGE, VIDEO

QUESTIONS = (
    "is there a red circle ?",
    "how many bars are taller than 3 ?",
    "what color is a star ?",
)
LENGTH = 4
EARLY = {
    "all": Pruning(),
    "prunesid": Pruning("prunesid", 10),
    "random": Pruning("random", 10, seed=3),
    "cdpruner": Pruning("cdpruner", 10),
}


@pytest.fixture(scope="module", params=["llava", *FAMILIES])
def adapter(request, tiny_llava, tmp_path_factory):
    if request.param == "llava":
        return families.load(tiny_llava)
    folder = tmp_path_factory.mktemp(request.param) / "model"
    FAMILIES[request.param](folder, tiny_llava)
    return families.load(folder)


def requests_of(adapter, count=3):
    kind = VIDEO if adapter.model.config.model_type == "video_llava" else IMAGE
    media = list(map(clip, range(count))) if kind == VIDEO else random_images(count)
    return [
        Request(f"image {n}", [medium], adapter.prompt(QUESTIONS[n % 3], [kind]), QUESTIONS[n % 3])
        for n, medium in enumerate(media)
    ]


def cut(adapter, ids):
    return next((ids[:n] for n, token in enumerate(ids) if token in adapter.end_ids), ids)


def alone(adapter, pruning, request):
    """The answer by the adapter's own `generate` on one request."""
    records = adapter.encode(adapter.preprocess(request.media), names=[request.name])
    kept = records.all_tokens()
    if pruning.method == "cdpruner":
        from prunesid.core.needs import Needs
        from prunesid.core.record import EMBEDDINGS

        needs = Needs(projected=True)
        records = adapter.encode(adapter.preprocess(request.media), needs, [request.name])
        text = [token for part in request.prompt.texts for token in part]
        vector = {request.name: adapter.question_of(text)}
        records = records.asked({request.name: request.name}, vector, EMBEDDINGS)
    if pruning.method is not None:
        kept = records.compress(
            pruning.method, budget=pruning.budget, seed=pruning.seed, **pruning.params
        )
    entering = enter(adapter, kept, records.inputs[request.name])
    return cut(adapter, adapter.generate(entering, request.prompt, LENGTH))


@pytest.mark.parametrize("arm", EARLY)
def test_answers_of_a_batch_are_those_of_each_request_alone(adapter, arm):
    requests, pruning = requests_of(adapter), EARLY[arm]
    served = serve(adapter, pruning, requests, LENGTH)
    found = [cut(adapter, ids) for ids in served.answers]
    assert found == [alone(adapter, pruning, request) for request in requests]
    assert set(served.seconds) == set(STATIONS)
    assert all(seconds >= 0 for seconds in served.seconds.values())
    assert served.seconds["prefill"] > 0
    assert 1 <= served.steps <= LENGTH


def test_methods_in_the_encoder_and_the_language_model_answer_as_in_a_study(tiny_llava):
    adapter = families.load(tiny_llava)
    requests = requests_of(adapter)
    assert "llava" in families_of("tome")
    plans = adapter.plans("tome", 6, {})
    for request in requests:
        kept, records = adapter.reduce(adapter.preprocess(request.media), plans, [request.name])
        entering = enter(adapter, kept, records.inputs[request.name])
        expected = cut(adapter, adapter.generate(entering, request.prompt, LENGTH))
        served = serve(adapter, Pruning("tome", 6), [request], LENGTH)
        assert cut(adapter, served.answers[0]) == expected
        assert served.tokens == 6
    late = Pruning("fastv", 12)
    records = adapter.encode(
        adapter.preprocess([request.media[0] for request in requests]),
        names=[request.name for request in requests],
    )
    asked = [
        Question(str(n), own.name, own.context, {"max_new_tokens": LENGTH})
        for n, own in enumerate(requests)
    ]
    study = answer_late(adapter, records.all_tokens(), records.inputs, asked, "fastv", budget=12)
    served = serve(adapter, late, requests, LENGTH)
    texts = [adapter.decode(cut(adapter, ids)).strip() for ids in served.answers]
    assert texts == [answer.answer for answer in study.answers]
    assert served.entering == study.answers[0].entering


def test_the_cache_holds_the_tokens_that_were_kept(tiny_llava):
    adapter = families.load(tiny_llava)
    request = requests_of(adapter, 1)
    per_token = adapter.sizes.decoder.kv_bytes_per_token(4)
    whole = serve(adapter, Pruning(), request, LENGTH, min_new_tokens=LENGTH)
    few = serve(adapter, Pruning("prunesid", 6), request, LENGTH, min_new_tokens=LENGTH)
    late = serve(adapter, Pruning("fastv", 12), request, LENGTH, min_new_tokens=LENGTH)
    assert (whole.tokens, few.tokens, late.tokens) == (16, 6, 16)
    assert whole.kv_bytes - few.kv_bytes == 10 * per_token
    gone = 16 * len(late.entering) - sum(late.entering)
    assert 0 < whole.kv_bytes - late.kv_bytes <= gone * per_token
    assert whole.steps == few.steps == LENGTH


def test_images_that_share_a_budget_have_their_own(tiny_llava):
    adapter = families.load(tiny_llava)
    requests = requests_of(adapter, 2)
    shared = Pruning("prunesid", {"image 0": 4, "image 1": 9, "another": 3})
    assert serve(adapter, shared, requests, LENGTH).tokens == 6.5
    for method in ("tome", "fastv"):
        with pytest.raises(ValueError, match="one budget for all images"):
            serve(adapter, Pruning(method, {"image 0": 4, "image 1": 9}), requests, LENGTH)


def test_arms_take_turns_on_the_same_batches(tiny_llava):
    adapter = families.load(tiny_llava)
    arms = {"all": Pruning(), "few": Pruning("grid", 4), "fewer": Pruning("grid", 2)}
    done = []
    timings = list(
        measure(
            adapter, arms, requests_of(adapter, 5), batches=(1, 2), rounds=2, max_new_tokens=1,
            progress=done.append,
        )
    )  # fmt: skip
    singles = [each for each in timings if each.batch == 1]
    pairs = [each for each in timings if each.batch == 2]
    # Of five requests, two pairs; twice; by three arms.
    assert (len(singles), len(pairs), sum(done)) == (30, 12, 3 * (10 + 8))
    assert [each.arm for each in pairs[:6]] == ["all", "few", "fewer", "few", "fewer", "all"]
    by_number = {each.number: set() for each in pairs}
    for each in pairs:
        by_number[each.number].add(each.requests)
    assert all(len(own) == 1 for own in by_number.values())
    assert by_number[0] == by_number[2] != by_number[1]


def test_a_batch_needs_as_many_requests(tiny_llava):
    adapter = families.load(tiny_llava)
    with pytest.raises(ValueError, match="a batch of 8 needs as many images; there are 2"):
        next(measure(adapter, {"all": Pruning()}, requests_of(adapter, 2), batches=(1, 8)))


def test_positions_of_a_padded_batch_are_those_of_each_prompt(tmp_path, tiny_llava):
    folder = tmp_path / "model"
    FAMILIES["qwen2_vl"](folder, tiny_llava)
    adapter = families.load(folder)
    requests = requests_of(adapter)
    rows = []
    for request in requests:
        records = adapter.encode(adapter.preprocess(request.media), names=[request.name])
        kept = records.compress("prunesid", budget=4)
        rows.append((enter(adapter, kept, records.inputs[request.name]), request.prompt))
    together = adapter.generation_inputs(rows)
    for number, row in enumerate(rows):
        own = adapter.generation_inputs([row])
        real = together["attention_mask"][number].bool()
        assert torch.equal(together["input_ids"][number, real], own["input_ids"][0])
        assert torch.equal(together["position_ids"][:, number, real], own["position_ids"][:, 0])
