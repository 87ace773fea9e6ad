"""`prune` on every model family: batches of prompts with one, two and no images or clips."""

from __future__ import annotations

import pytest
import torch
from builders.family_models import FAMILIES
from builders.tiny_llava import random_images
from builders.video_llava_models import clip

import prunesid
from prunesid import families
from prunesid.core.questions import Question
from prunesid.core.record import Kept
from prunesid.families.adapter import around
from prunesid.families.declared import families_of
from prunesid.generate.engine import enter
from prunesid.generate.late import answer_late, entering_attention
from prunesid.images.medium import IMAGE, VIDEO
from prunesid.methods.registry import ENCODER, list_methods

QUESTION = "is there a red circle ?"
GREEDY = {"do_sample": False, "max_new_tokens": 4}
IMAGES = (IMAGE, (1, 2, 0))
CLIPS = (VIDEO, (1, 0, 2))
CASES = [(family, *IMAGES) for family in FAMILIES] + [
    (family, *CLIPS)
    for family in (
        "internvl",
        "llava_onevision",
        "qwen2_vl",
        "qwen2_5_vl",
        "qwen3_vl",
        "video_llava",
    )
]

# What is shown whole enters with newlines, or with text between its frames.
WITH_OTHERS = {
    ("llava_next", IMAGE),
    ("llava_onevision", IMAGE),
    ("llava_onevision", VIDEO),
    ("internvl", VIDEO),
}


@pytest.fixture(scope="module")
def adapters(tiny_llava, tmp_path_factory):
    found = {}

    def load(family):
        if family not in found:
            folder = tmp_path_factory.mktemp(family) / "model"
            FAMILIES[family](folder, tiny_llava)
            found[family] = families.load(folder)
        return found[family]

    return load


def media_of(kind, shown):
    """The media of each prompt."""
    media = random_images(sum(shown)) if kind == IMAGE else list(map(clip, range(sum(shown))))
    return [[media.pop(0) for _ in range(count)] for count in shown]


def given(adapter, samples, kind):
    """A batch as the model's processor makes it, with all placeholders, padded on the left."""
    rows, whole = [], []
    visual = adapter.preprocess([medium for own in samples for medium in own])
    # The model treats prompts with several images differently.
    visual.pop("pixel_values_squares", None)
    if "batch_num_images" in visual:
        visual["batch_num_images"] = torch.tensor([len(own) for own in samples if own])
    records = adapter.encode(visual)
    # The prompt already holds the times.
    visual.pop("video_seconds", None)
    for medium in (medium for own in records.inputs.values() for medium in own):
        whole.append(enter(adapter, records.all_tokens(), [medium]))
    for number, own in enumerate(samples):
        parts = [part for _ in own for part in whole.pop(0)]
        texts = around(adapter.prompt(f"{QUESTION} {number}", [kind] * len(own)).texts, parts)
        row = list(texts[0])
        for part, text in zip(parts, texts[1:], strict=True):
            own = [adapter.placeholders[kind]] * len(part)
            if (adapter.model.config.model_type, kind) == ("internvl", VIDEO):
                own = frames_of(adapter, len(part))
            row += own + list(text)
        rows.append(row)
    if adapter.model.config.model_type == "internvl":
        # Its processor returns nothing else.
        visual = {"pixel_values": visual["pixel_values"]}
    width = max(map(len, rows))
    ids = torch.tensor([[0] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    inputs = {"input_ids": ids, "attention_mask": mask, **visual}
    if "qwen" in adapter.model.config.model_type:
        inputs["mm_token_type_ids"] = (ids == adapter.placeholders[kind]) * (1 + (kind == VIDEO))
    return inputs


def frames_of(adapter, width):
    """A clip of InternVL as `width` ids: 4 tokens a frame, and the processor's text between."""
    found, number = [adapter.placeholders[IMAGE]] * 4, 2
    while len(found) < width:
        between = adapter.processor.tokenizer(f"</img>\nFrame{number}: <img>")["input_ids"]
        if between[0] == adapter.processor.tokenizer.bos_token_id:
            del between[0]
        found += [*between, *[adapter.placeholders[IMAGE]] * 4]
        number += 1
    assert len(found) == width
    return found


def answers(adapter, rows):
    """New tokens up to the end token, per row."""
    ends = [[place for place, t in enumerate(row) if t in adapter.end_ids] for row in rows]
    return [row[: end[0]] if end else row for row, end in zip(rows, ends, strict=True)]


def new_tokens(adapter, inputs, **how):
    width = inputs["input_ids"].shape[1]
    return answers(adapter, adapter.model.generate(**inputs, **how)[:, width:].tolist())


def embedded(adapter, short, number, kind):
    """Prompt `number` alone, as embeddings assembled without the model's own insertion.

    Of a model whose later layers add to tokens as ids, since embeddings say nothing of that.
    """
    kind = adapter.taken_as.get(kind, kind)
    real = short["attention_mask"][number].bool()
    ids = short["input_ids"][number, real][None]
    here = ids == adapter.placeholders[kind]
    embeddings = adapter.embed(ids.masked_fill(here, 0))
    inputs = {"inputs_embeds": embeddings, "attention_mask": torch.ones_like(ids)}
    if here.any():
        outputs = short["mm_encoder_outputs"][kind]
        layers = [outputs.pooler_output, *(getattr(outputs, "deepstack_features", None) or ())]
        tokens = torch.cat(
            [torch.cat([own.reshape(-1, own.shape[-1]) for own in layer]) for layer in layers],
            dim=1,
        )
        first = int((short["input_ids"][:number] == adapter.placeholders[kind]).sum())
        embeddings[here] = tokens[first : first + int(here.sum())]
    if embeddings.shape[2] > adapter.model.get_input_embeddings().embedding_dim:
        inputs["input_ids"] = ids
        del inputs["inputs_embeds"]
        if here.any():
            inputs["mm_encoder_outputs"] = adapter.encoder_outputs({kind: [embeddings[here]]})
    if "position_ids" in short:
        inputs["position_ids"] = short["position_ids"][:, [number]][:, :, real]
    return inputs


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]} {case[1]}")
def case(request, adapters):
    """An adapter, a kind, the media of each prompt, and a budget that drops tokens."""
    family, kind, shown = request.param
    # Its processor treats images that share a prompt differently.
    shown = (1, 1, 0) if (family, kind) == ("llava_onevision", IMAGE) else shown
    budget = 3 if kind == IMAGE and ("qwen" in family or family == "internvl") else 10
    return adapters(family), kind, media_of(kind, shown), budget


def test_greedy_answers_are_those_of_the_adapter(case):
    adapter, kind, samples, budget = case
    inputs = given(adapter, samples, kind)
    # The placeholders are those that the unmodified model expects.
    logits = adapter.model(**inputs).logits
    short = prunesid.prune(adapter.model, adapter.processor, inputs, budget=budget)
    assert short["input_ids"].shape[1] < inputs["input_ids"].shape[1]
    found = new_tokens(adapter, short, **GREEDY)
    for number, own in enumerate(samples):
        prompt, entering = adapter.prompt(f"{QUESTION} {number}", [kind] * len(own)), []
        if own:
            records = adapter.encode(adapter.preprocess(own))
            kept = records.compress("prunesid", budget=budget)
            entering = enter(adapter, kept, [m for each in records.inputs.values() for m in each])
        placeholder = adapter.placeholders[adapter.taken_as.get(kind, kind)]
        places = (short["input_ids"][number] == placeholder).sum()
        assert places == sum(map(len, entering))
        alone = adapter.generate(entering, prompt, GREEDY["max_new_tokens"])
        assert [found[number]] == answers(adapter, [alone])
    nothing = pytest.warns(UserWarning, match="nothing is pruned: budget 4000 covers")
    with prunesid.pruned(adapter.model, adapter.processor, budget=4000), nothing:
        assert torch.equal(adapter.model(**inputs).logits, logits)


def test_beams_of_a_batch_are_those_of_its_prompts(case):
    adapter, kind, samples, budget = case
    model, weight = adapter.model, adapter.model.lm_head.weight.data
    inputs = given(adapter, samples, kind)
    beams = {"num_beams": 3, "do_sample": False, "max_new_tokens": 4}
    # Logits so close to each other that beams differ.
    model.lm_head.weight.data = weight / 16
    try:
        short = prunesid.prune(model, adapter.processor, inputs, budget=budget)
        found = new_tokens(adapter, short, **beams)
        for number in range(len(samples)):
            own = embedded(adapter, short, number, kind)
            alone = model.generate(**own, **beams)
            # If ids are given, they are returned before the new tokens.
            alone = alone[:, own["input_ids"].shape[1] :] if "input_ids" in own else alone
            assert [found[number]] == answers(adapter, alone.tolist())
    finally:
        model.lm_head.weight.data = weight


INSIDE = [
    (method, *case)
    for method in list_methods(ENCODER)
    for case in CASES
    if case[0] in families_of(method)
]


@pytest.mark.parametrize("chosen", INSIDE, ids=lambda chosen: " ".join(chosen[:3]))
def test_methods_inside_the_encoder(adapters, chosen):
    method, family, kind, shown = chosen
    adapter, samples = adapters(family), media_of(kind, shown)
    inputs = given(adapter, samples, kind)
    budget = 24 if kind == VIDEO else 3 if "qwen" in family else 10
    short = prunesid.prune(adapter.model, adapter.processor, inputs, method, budget)
    placeholder = adapter.placeholders[adapter.taken_as.get(kind, kind)]
    places = (short["input_ids"] == placeholder).sum(1).tolist()
    found = new_tokens(adapter, short, **GREEDY)
    plans = adapter.plans(method, budget, {})
    for number, own in enumerate(samples):
        prompt, entering = adapter.prompt(f"{QUESTION} {number}", [kind] * len(own)), []
        if own:
            kept, blank = adapter.reduce(adapter.preprocess(own), plans)
            entering = enter(adapter, kept, [m for each in blank.inputs.values() for m in each])
            assert int(kept.count.sum()) <= budget * len(own)
        assert places[number] == sum(map(len, entering))
        alone = adapter.generate(entering, prompt, GREEDY["max_new_tokens"])
        assert [found[number]] == answers(adapter, [alone])
    # With all tokens the inputs come back as they are.
    whole = prunesid.prune(adapter.model, adapter.processor, inputs, method, 4000)
    assert whole.keys() == inputs.keys()


def late_budget(adapter, samples):
    """About two thirds of a medium's tokens, which three layers allow."""
    records = adapter.encode(adapter.preprocess([medium for own in samples for medium in own]))
    media = [medium for own in records.inputs.values() for medium in own]
    whole = records.all_tokens()
    return round(0.65 * min(sum(map(len, enter(adapter, whole, [each]))) for each in media))


@pytest.mark.parametrize("method", ["fastv", "sparsevlm"])
def test_methods_inside_the_language_model(case, method):
    adapter, kind, samples, _ = case
    model, processor = adapter.model, adapter.processor
    inputs, budget = given(adapter, samples, kind), late_budget(adapter, samples)
    with prunesid.pruned(model, processor, method, budget):
        found = new_tokens(adapter, inputs, **GREEDY)
        logits = model(**inputs).logits
    assert "forward" not in vars(adapter.decoder)
    for number, own in enumerate(samples):
        records = (
            adapter.encode(adapter.preprocess(own), names=["shown"] * len(own)) if own else None
        )
        shown = {"shown": records.inputs["shown"] if own else ()}
        kept = records.all_tokens() if own else Kept.nothing()
        question = Question("q", "shown", f"{QUESTION} {number}", {"max_new_tokens": 4})
        expected = answer_late(adapter, kept, shown, [question], method, budget=budget)
        assert adapter.decode(found[number]).strip() == expected.answers[0].answer.strip()
        assert int(logits[number, -1].argmax()) in (found[number][:1] or adapter.end_ids)
    # With all tokens the decoder returns what it does by itself, in beam search as well.
    beams = {"num_beams": 3, "do_sample": False, "max_new_tokens": 4}
    plain, scored = model(**inputs).logits, new_tokens(adapter, inputs, **beams)
    real = inputs["attention_mask"].bool()
    with prunesid.pruned(model, processor, method, 4000):
        assert torch.allclose(model(**inputs).logits[real], plain[real], atol=1e-4)
        assert new_tokens(adapter, inputs, **beams) == scored


def test_beams_inside_the_language_model_are_those_of_each_prompt(case):
    adapter, kind, samples, _ = case
    model, weight = adapter.model, adapter.model.lm_head.weight.data
    beams = {"num_beams": 3, "do_sample": False, "max_new_tokens": 4}
    model.lm_head.weight.data = weight / 16
    try:
        with prunesid.pruned(model, adapter.processor, "fastv", late_budget(adapter, samples)):
            together = new_tokens(adapter, given(adapter, samples, kind), **beams)
            alone = new_tokens(adapter, given(adapter, samples[:1], kind), **beams)
    finally:
        model.lm_head.weight.data = weight
    assert together[:1] == alone


@pytest.mark.parametrize(("family", "kind", "shown"), CASES)
def test_every_token_that_enters_has_the_attention_of_its_patch(adapters, family, kind, shown):
    """Newlines, and text between frames, have none."""
    adapter = adapters(family)
    records = adapter.encode(adapter.preprocess(max(media_of(kind, shown), key=len)))
    kept = records.all_tokens()
    numbers = 1 + torch.arange(kept.index.numel()).view_as(kept.index).double()
    tokens = kept.tokens.flatten(0, 1)
    if not family.startswith(("qwen", "llava_onevision")):
        tokens = adapter.project(tokens)
    for media in records.inputs.values():
        parts = enter(adapter, kept, media)
        found = entering_attention(numbers, kept, media, parts, "it").long()
        embeddings = torch.cat([part.embeddings for part in parts])
        own, others = embeddings[found > 0], embeddings[found == 0]
        torch.testing.assert_close(own, tokens[found[found > 0] - 1], rtol=1e-4, atol=1e-5)
        assert len(found[found > 0].unique()) == len(own) > 0
        if len(others):
            assert (torch.cdist(others, own) > 1e-3).all()
        assert bool(len(others)) == ((family, kind) in WITH_OTHERS)
