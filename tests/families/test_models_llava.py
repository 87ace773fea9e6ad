"""The LLaVA adapter against transformers' own model."""

from __future__ import annotations

import shutil

import pytest
import torch
from builders.reference_decoding import slow_greedy
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, AutoProcessor

from prunesid import families
from prunesid.core.needs import Needs
from prunesid.core.record import OPTIONAL
from prunesid.families.adapter import Crop
from prunesid.images.medium import IMAGE

QUESTION = "is there a red circle ?"


@pytest.fixture(scope="module")
def adapter(tiny_llava):
    return families.load(tiny_llava)


@pytest.fixture(scope="module")
def plain(tiny_llava):
    return AutoModelForImageTextToText.from_pretrained(tiny_llava).eval()


@pytest.fixture(scope="module")
def processor(tiny_llava):
    return AutoProcessor.from_pretrained(tiny_llava)


@pytest.fixture
def inputs(processor, images):
    text = f"USER: <image>\n{QUESTION} ASSISTANT:"
    return processor(images=images, text=[text] * len(images), return_tensors="pt")


def test_geometry(adapter):
    assert adapter.num_tokens == 16
    assert (adapter.num_blocks, adapter.feature_block) == (4, 2)


def test_features_are_the_hidden_states_that_the_model_uses(adapter, plain, inputs):
    record = adapter.encode(inputs, Needs(layers=frozenset({0, 3}))).single
    assert record.grid == (4, 4)
    with torch.no_grad():
        states = plain.model.vision_tower(
            inputs["pixel_values"], output_hidden_states=True
        ).hidden_states
        visual = plain.get_image_features(inputs["pixel_values"]).pooler_output
    torch.testing.assert_close(record.features, states[-2][:, 1:])
    torch.testing.assert_close(record.cls, states[-2][:, 0])
    torch.testing.assert_close(record.hidden[0], states[1][:, 1:])
    torch.testing.assert_close(record.hidden[3], states[4][:, 1:])
    torch.testing.assert_close(adapter.project(record.features), torch.stack(list(visual)))


def test_preprocessing_is_the_processor_s(adapter, inputs, images):
    assert torch.equal(adapter.preprocess(images)["pixel_values"], inputs["pixel_values"])


def test_attention_and_keys_equal_eager_attention(adapter, tiny_llava, inputs):
    eager = AutoModelForImageTextToText.from_pretrained(tiny_llava, attn_implementation="eager")
    with torch.no_grad():
        tower = eager.model.vision_tower(inputs["pixel_values"], output_attentions=True)
        states = eager.model.vision_tower(
            inputs["pixel_values"], output_hidden_states=True
        ).hidden_states
        block = eager.model.vision_tower.encoder.layers[2]
        keys = block.self_attn.k_proj(block.layer_norm1(states[2]))
    asked = Needs(cls_attention=True, keys=True, last_cls_attention=True)
    record = adapter.encode(inputs, asked).single
    torch.testing.assert_close(
        record.last_cls_attention, tower.attentions[-1][:, :, 0, 1:].mean(1), atol=1e-5, rtol=0
    )
    torch.testing.assert_close(
        record.cls_attention, tower.attentions[-2][:, :, 0, 1:], atol=1e-5, rtol=0
    )
    torch.testing.assert_close(
        record.keys, keys[:, 1:].unflatten(-1, (2, 16)).transpose(1, 2), atol=1e-5, rtol=1e-5
    )


def test_the_last_block_and_the_projector_are_the_model_s(adapter, plain, inputs):
    with torch.no_grad():
        states = plain.model.vision_tower(
            inputs["pixel_values"], output_hidden_states=True
        ).hidden_states
        block = plain.model.vision_tower.encoder.layers[3]
        query, key = (
            projection(block.layer_norm1(states[3]))
            for projection in (block.self_attn.q_proj, block.self_attn.k_proj)
        )
        visual = plain.get_image_features(inputs["pixel_values"]).pooler_output
    attention = (query @ key.transpose(1, 2) / 32**0.5).softmax(-1)
    asked = Needs(projected=True, last_attention=True, last_keys=True)
    record = adapter.encode(inputs, asked).single
    torch.testing.assert_close(record.last_attention, attention[:, 0, 1:], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(record.last_keys, key[:, 1:])
    torch.testing.assert_close(record.projected, torch.stack(list(visual)))
    # Each field is the same whatever else is asked for.
    alone = adapter.encode(inputs, Needs(last_attention=True)).single
    assert torch.equal(alone.last_attention, record.last_attention) and alone.last_keys is None
    assert torch.equal(
        adapter.encode(inputs, Needs(last_keys=True)).single.last_keys, record.last_keys
    )


def test_optional_fields_are_left_out(adapter, inputs):
    record = adapter.encode(inputs).single
    assert not record.hidden
    assert [name for name in OPTIONAL if getattr(record, name) is not None] == ["cls"]


def test_hooks_are_gone_afterwards(adapter, inputs):
    adapter.encode(inputs, Needs(keys=True, last_attention=True, layers=frozenset({1})))
    assert not any(module._forward_hooks for module in adapter.model.modules())


def test_prompt_is_the_processor_s(adapter, inputs):
    prompt = adapter.prompt(QUESTION, [IMAGE])
    image = [adapter.model.config.image_token_id] * adapter.num_tokens
    before, after = prompt.texts
    assert [*before, *image, *after] == inputs["input_ids"][0].tolist()


def test_a_context_may_place_the_image_itself(adapter):
    assert adapter.prompt(f"<image>\n{QUESTION}", [IMAGE]) == adapter.prompt(QUESTION, [IMAGE])
    two = adapter.prompt(f"{QUESTION} <image> and <image> ?", [IMAGE, IMAGE])
    assert len(two.texts) == 3
    with pytest.raises(ValueError, match="this one places 2"):
        adapter.prompt(f"<image> <image> {QUESTION}", [IMAGE])
    assert len(adapter.prompt(QUESTION, []).texts) == 1


def test_all_tokens_give_the_logits_and_answers_of_the_unmodified_model(adapter, plain, inputs):
    record = adapter.encode(inputs).single
    prompt = adapter.prompt(QUESTION, [IMAGE])
    with torch.no_grad():
        expected = plain(**inputs).logits[:, -1]
    generated = plain.generate(**inputs, do_sample=False, max_new_tokens=6)
    for row in range(len(record)):
        hidden = adapter.run(_embedded(adapter, record.features[row], prompt), adapter.new_cache())
        torch.testing.assert_close(
            adapter.logits(hidden[0, -1]), expected[row], atol=1e-3, rtol=1e-4
        )
        ours = adapter.generate(
            [_entering(adapter, record.features[row])], prompt, max_new_tokens=6
        )
        theirs = generated[row, inputs["input_ids"].shape[1] :].tolist()
        assert adapter.decode(ours) == adapter.decode(theirs)


def test_pruned_generation_equals_a_cache_free_reference(adapter, inputs):
    record = adapter.encode(inputs).single
    prompt = adapter.prompt(QUESTION, [IMAGE])
    for row, count in enumerate((1, 3, 7, 16)):
        tokens = record.features[row, torch.randperm(16)[:count].sort().values]
        visual = adapter.project(tokens)
        expected = slow_greedy(adapter.model, prompt.texts, [visual], adapter.end_ids, 6)
        assert adapter.generate([_entering(adapter, tokens)], prompt, 6) == expected


def test_errors_name_the_choices(tmp_path, tiny_llava, adapter, inputs):
    with pytest.raises(ValueError, match="No model at"):
        families.load(tmp_path / "nothing")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match="Available: internvl, llava"):
        families.load(tmp_path)
    with pytest.raises(ValueError, match="Did you mean 'float32'"):
        families.load(tiny_llava, dtype="float23")
    with pytest.raises(ValueError, match=r"layers \[4\] are not among 0..3"):
        adapter.encode(inputs, Needs(layers=frozenset({4})))


def _entering(adapter, tokens):
    return adapter.enter([Crop(tokens, torch.arange(len(tokens)))], {})


def _embedded(adapter, tokens, prompt):
    before, after = (adapter.embed(torch.tensor(ids)) for ids in prompt.texts)
    return torch.cat([before, adapter.project(tokens), after])[None]


def test_weights_that_lack_tensors_are_refused(tiny_llava, tmp_path):
    folder = shutil.copytree(tiny_llava, tmp_path / "model")
    weights = folder / "model.safetensors"
    tensors = load_file(weights)
    lost = [name for name in tensors if "q_proj" in name][:2]
    save_file({n: t for n, t in tensors.items() if n not in lost}, weights, {"format": "pt"})
    with pytest.raises(ValueError, match="the weights lack 2 tensors: .*q_proj"):
        families.load(folder)
