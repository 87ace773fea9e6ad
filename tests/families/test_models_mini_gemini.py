"""The Mini-Gemini adapter against the unmodified model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from builders import mini_gemini_data as data
from builders.reference_decoding import slow_greedy
from builders.tiny_llava import random_images
from PIL import Image
from transformers import AutoTokenizer

from prunesid import families
from prunesid.core.needs import Needs
from prunesid.core.questions import Question
from prunesid.core.record import Kept
from prunesid.families.adapter import Crop
from prunesid.families.inputs.conversations import CONVERSATIONS
from prunesid.families.mini_gemini import MiniGeminiForConditionalGeneration, MiniGeminiProcessor
from prunesid.generate import engine
from prunesid.images.medium import CENTER, IMAGE, PADDED
from prunesid.study.provenance.code import family_modules
from prunesid.study.stages.patches import as_seen

QUESTION = "is there a red circle ?"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, tiny_llava):
    """A published checkpoint with both towers in it, and a tokenizer of as many tokens."""
    folder = tmp_path_factory.mktemp("mini_gemini")
    tensors = data.published_tensors()
    towers = data.save_towers(folder, tensors)
    data.save_published(folder / "MGM", tensors, **towers)
    AutoTokenizer.from_pretrained(tiny_llava).save_pretrained(folder / "MGM")
    return folder / "MGM"


@pytest.fixture(scope="module")
def adapter(checkpoint):
    return families.load(checkpoint)


@pytest.fixture(scope="module")
def plain(checkpoint):
    return MiniGeminiForConditionalGeneration.from_pretrained(checkpoint)


@pytest.fixture(scope="module")
def images():
    return [*random_images(2, size=56), *random_images(2, seed=1, size=90)]


@pytest.fixture(scope="module")
def inputs(plain, checkpoint, images):
    processor = MiniGeminiProcessor.of(plain.config, checkpoint)
    text = CONVERSATIONS["vicuna_v1"].text(f"<image>\n{QUESTION}")
    return processor(images, [text] * len(images))


def entering(adapter, tokens):
    return adapter.enter([Crop(tokens, torch.arange(len(tokens)))], {})


def embedded(adapter, tokens, prompt):
    before, after = (adapter.embed(torch.tensor(ids)) for ids in prompt.texts)
    return torch.cat([before, adapter.project(tokens), after])[None]


def test_geometry(adapter, checkpoint):
    assert (adapter.num_tokens, adapter.num_blocks, adapter.feature_block) == (16, 4, 2)
    assert adapter.end_ids == {2}
    assert "mini_gemini" in families.families()
    assert family_modules(str(checkpoint)) == ["prunesid.families.mini_gemini"]


def test_what_is_compressed_are_the_final_tokens(adapter, plain, inputs, images):
    found = adapter.preprocess(images)
    assert torch.equal(found["pixel_values"], inputs["pixel_values"])
    assert torch.equal(found["pixel_values_aux"], inputs["pixel_values_aux"])
    asked = Needs(cls_attention=True, projected=True, layers=frozenset({2}))
    records = adapter.encode(found, asked, ["a", "b", "c", "d"])
    record = records.single
    with torch.no_grad():
        features = plain.get_image_features(
            found["pixel_values"], pixel_values_aux=found["pixel_values_aux"]
        )
        patches = plain.model.patches(found["pixel_values"])
    assert record.grid == (4, 4) and record.image_ids == ("a", "b", "c", "d")
    torch.testing.assert_close(record.features, features.last_hidden_state)
    torch.testing.assert_close(record.projected, torch.stack(features.pooler_output))
    # The other fields are the CLIP tower's own.
    torch.testing.assert_close(record.hidden[2], patches)
    assert not torch.allclose(record.features, record.hidden[2], atol=0.1)
    assert records.inputs["a"][0].layout == {"view": PADDED}


def test_attention_is_the_clip_tower_s(adapter, checkpoint, inputs):
    eager = MiniGeminiForConditionalGeneration.from_pretrained(
        checkpoint, attn_implementation="eager"
    )
    with torch.no_grad():
        tower = eager.model.vision_tower(inputs["pixel_values"], output_attentions=True)
    record = adapter.encode(inputs, Needs(cls_attention=True)).single
    torch.testing.assert_close(
        record.cls_attention, tower.attentions[-2][:, :, 0, 1:], atol=1e-5, rtol=0
    )


def test_prompt_is_the_processor_s(adapter, inputs):
    prompt = adapter.prompt(QUESTION, [IMAGE])
    before, after = prompt.texts
    image = [adapter.placeholders[IMAGE]] * 16
    assert [*before, *image, *after] == inputs["input_ids"][0].tolist()
    assert adapter.prompt(f"<image>\n{QUESTION}", [IMAGE]) == prompt
    assert len(adapter.prompt(f"{QUESTION} <image> and <image>", [IMAGE] * 2).texts) == 3
    assert len(adapter.prompt(QUESTION, [IMAGE] * 3).texts) == 4
    assert len(adapter.prompt(QUESTION, []).texts) == 1
    with pytest.raises(ValueError, match="this one places 2"):
        adapter.prompt(f"<image> <image> {QUESTION}", [IMAGE])


def test_all_tokens_give_the_logits_and_answers_of_the_unmodified_model(adapter, plain, inputs):
    record = adapter.encode(inputs).single
    prompt = adapter.prompt(QUESTION, [IMAGE])
    with torch.no_grad():
        expected = plain(**inputs).logits[:, -1]
    generated = plain.generate(**inputs, do_sample=False, max_new_tokens=6)
    for row in range(len(record)):
        hidden = adapter.run(embedded(adapter, record.features[row], prompt), adapter.new_cache())
        torch.testing.assert_close(
            adapter.logits(hidden[0, -1]), expected[row], atol=1e-3, rtol=1e-4
        )
        ours = adapter.generate([entering(adapter, record.features[row])], prompt, 6)
        theirs = generated[row, inputs["input_ids"].shape[1] :].tolist()
        assert adapter.decode(ours) == adapter.decode(theirs)


def test_pruned_generation_equals_a_cache_free_reference(adapter, inputs):
    records = adapter.encode(inputs, Needs(cls_attention=True))
    prompt = adapter.prompt(QUESTION, [IMAGE])
    kept = records.compress("prunesid", budget=6)
    assert kept.count.tolist() == [6] * 4
    torch.testing.assert_close(kept.tokens, records.gather(kept.index))
    for tokens in kept.tokens:
        ours = adapter.generate([entering(adapter, tokens)], prompt, 6)
        visual = adapter.project(tokens)
        assert ours == slow_greedy(adapter.model, prompt.texts, [visual], adapter.end_ids, 6)


def test_ragged_batches_answer_as_each_question_alone(adapter, images):
    names = ["a", "b", "c", "d"]
    records = adapter.encode(adapter.preprocess(images), names=names)
    counts, features = [3, 16, 1, 9], records.single.features
    kept = Kept(features, torch.arange(16).expand(4, -1), torch.tensor(counts))
    questions = [
        Question(f"{name}/{number}", name, context, {"max_new_tokens": 5})
        for name in names
        for number, context in enumerate((QUESTION, "how many ?", "what color is the star ?"))
    ]
    answers = engine.answer(adapter, kept, records.inputs, questions, batch_size=3)
    assert [each.answer for each in answers] == [
        engine.answer_plainly(adapter, kept, records.inputs[question.image_id], question)
        for question in questions
    ]
    assert len({each.answer for each in answers}) > 3


def test_our_own_form_is_loaded_the_same_way(tmp_path, adapter, inputs):
    adapter.model.save_pretrained(tmp_path)
    adapter.processor.tokenizer.save_pretrained(tmp_path)
    again = families.load(tmp_path)
    assert torch.equal(again.encode(inputs).single.features, adapter.encode(inputs).single.features)
    assert again.prompt(QUESTION, [IMAGE]) == adapter.prompt(QUESTION, [IMAGE])


def test_what_is_not_a_vicuna_is_refused(adapter):
    config = adapter.model.config
    old = config.text_config.vocab_size
    try:
        config.text_config.vocab_size = 128_256
        with pytest.raises(ValueError, match="vocabulary of 128256, is not a Vicuna"):
            families.adapt(adapter.model, adapter.processor)
    finally:
        config.text_config.vocab_size = old


def test_padded_images_are_shown_as_the_towers_see_them(adapter, plain, checkpoint):
    pixels = np.full((20, 60, 3), 200, dtype=np.uint8)
    seen = as_seen(Image.fromarray(pixels), (60, 60), PADDED)
    assert (seen[20:40] == 200).all()
    assert (seen[[0, 19, 40, 59]] == (122, 116, 104)).all()
    try:
        plain.config.image_aspect_ratio = "square"
        processor = MiniGeminiProcessor.of(plain.config, checkpoint)
        assert families.adapt(plain, processor).view == CENTER
    finally:
        plain.config.image_aspect_ratio = "pad"
