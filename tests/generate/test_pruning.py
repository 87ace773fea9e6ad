"""The library calls `prune` and `pruned` on transformers' own model and processor."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from builders.tiny_llava import random_images
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoProcessor,
    GenerationConfig,
    LlavaForConditionalGeneration,
)

import prunesid
from prunesid import families
from prunesid.core.needs import Needs
from prunesid.core.questions import Question
from prunesid.families.adapter import Entering
from prunesid.families.llava import Llava
from prunesid.generate.engine import enter
from prunesid.generate.late import answer_late
from prunesid.images.medium import IMAGE

# Images of each prompt: one, two (side by side in the prompt), none, one.
TEXTS = (
    "USER: <image>\n is there a red circle ? ASSISTANT:",
    "USER: <image> <image>\n what color ? ASSISTANT:",
    "USER: is there a star ? ASSISTANT:",
    "USER: <image>\n how many bars are taller than 3 ? ASSISTANT:",
)
SHOWN = ((0,), (1, 2), (), (3,))
GREEDY = {"do_sample": False, "max_new_tokens": 6}


@pytest.fixture(scope="module")
def processor(tiny_llava):
    return AutoProcessor.from_pretrained(tiny_llava)


@pytest.fixture
def model(tiny_llava):
    return AutoModelForImageTextToText.from_pretrained(tiny_llava).eval()


@pytest.fixture
def flat(model):
    """A model with logits so close to each other that beams and samples differ."""
    model.lm_head.weight.data /= 16
    return model


@pytest.fixture(scope="module")
def pictures():
    return random_images(4)


@pytest.fixture(scope="module")
def inputs(processor, pictures):
    return processor(images=pictures, text=list(TEXTS), padding=True, return_tensors="pt")


def single(processor, pictures, sample):
    images = [pictures[number] for number in SHOWN[sample]] or None
    return processor(images=images, text=TEXTS[sample], return_tensors="pt")


def answers(output, width):
    """New tokens up to the end token, per row."""
    rows = [row[width:].tolist() for row in output]
    return [row[: row.index(2)] if 2 in row else row for row in rows]


def embedded(model, pruned):
    """The prompts as embeddings, assembled without the model's own insertion."""
    embeddings = model.get_input_embeddings()(pruned["input_ids"])
    visual = torch.cat(list(pruned["mm_encoder_outputs"]["image"].pooler_output))
    embeddings[pruned["input_ids"] == model.config.image_token_id] = visual
    return {"inputs_embeds": embeddings, "attention_mask": pruned["attention_mask"]}


def entering_counts(model, pruned):
    """Placeholders of each prompt, and embeddings of each image."""
    places = (pruned["input_ids"] == model.config.image_token_id).sum(1).tolist()
    return places, [len(own) for own in pruned["mm_encoder_outputs"]["image"].pooler_output]


@pytest.mark.parametrize("method", ["prunesid", "visionzip", "random"])
def test_greedy_answers_are_those_of_the_adapter(model, processor, pictures, inputs, method):
    adapter = families.adapt(model, processor)
    short = prunesid.prune(model, processor, inputs, method, 5)
    found = answers(model.generate(**short, **GREEDY), short["input_ids"].shape[1])
    # All at once: random choices for unnamed images depend on the bytes of their features, and a
    # batch decides the last bits.
    needs = prunesid.methods.registry.requirements(method)
    records = adapter.encode(adapter.preprocess(pictures), needs)
    kept = records.compress(method, budget=5)
    media = [medium for own in records.inputs.values() for medium in own]
    for sample, shown in enumerate(SHOWN):
        prompt = adapter.prompt(TEXTS[sample][6:-11], [IMAGE] * len(shown))
        if not shown:
            continue
        own = [media[number] for number in shown]
        alone = adapter.generate(enter(adapter, kept, own), prompt, 6)
        assert found[sample] == answers([torch.tensor(alone)], 0)[0]
    assert len({tuple(row) for row in found}) > 2


LATE = {
    "fastv": (9, {}),
    "dart": (10, {"image_pivots": 1, "text_pivots": 1}),
    "sparsevlm": (11, {}),
    "mustdrop": (9, {"rule": "budget"}),
}


@pytest.mark.parametrize("method", LATE)
def test_methods_inside_the_language_model(model, processor, pictures, inputs, method):
    budget, params = LATE[method]
    adapter, width = families.adapt(model, processor), inputs["input_ids"].shape[1]
    before = dict(vars(model)), dict(vars(adapter.decoder))
    with prunesid.pruned(model, processor, method, budget, **params):
        output = model.generate(**inputs, **GREEDY)
    assert (dict(vars(model)), dict(vars(adapter.decoder))) == before
    assert torch.equal(output[:, :width], inputs["input_ids"])
    found, plain = answers(output, width), answers(model.generate(**inputs, **GREEDY), width)
    names = [str(sample) for sample, shown in enumerate(SHOWN) for _ in shown]
    pixels = adapter.preprocess(pictures)
    records = adapter.encode(pixels, Needs(last_cls_attention=True), names)
    kept = records.all_tokens()
    attention = records.gather(kept.index, "last_cls_attention")
    for sample in range(len(TEXTS)):
        question = Question("q", str(sample), TEXTS[sample][6:-11], {"max_new_tokens": 6})
        if not SHOWN[sample]:
            assert found[sample] == plain[sample]
            continue
        expected = answer_late(
            adapter, kept, records.inputs, [question], method,
            budget=budget, params=params, cls_attention=attention,
        )  # fmt: skip
        assert processor.decode(found[sample]).strip() == expected.answers[0].answer.strip()
    assert found != plain


def test_what_a_dropping_decoder_cannot_give(model, processor, inputs):
    refused = pytest.raises(ValueError, match="output_attentions: layers see different tokens")
    with prunesid.pruned(model, processor, "fastv", 9), refused:
        model(**inputs, output_attentions=True)
    refused = pytest.raises(ValueError, match="smallest possible budget is")
    with prunesid.pruned(model, processor, "fastv", 3), refused:
        model.generate(**inputs, **GREEDY)
    with pytest.raises(ValueError, match="fastv drops tokens inside .*prunesid.pruned.*tome"):
        prunesid.prune(model, processor, inputs, "fastv", 9)


def test_a_batch_gives_what_its_samples_give_one_by_one(model, processor, pictures, inputs):
    short = prunesid.prune(model, processor, inputs, budget=5)
    together = answers(model.generate(**short, **GREEDY), short["input_ids"].shape[1])
    for sample in range(len(TEXTS)):
        own = prunesid.prune(model, processor, single(processor, pictures, sample), budget=5)
        width = own["input_ids"].shape[1]
        assert answers(model.generate(**own, **GREEDY), width) == [together[sample]]
        assert torch.equal(own["input_ids"][0], short["input_ids"][sample, -width:])
        assert not short["attention_mask"][sample, :-width].any()


def test_inside_the_block_calls_prune_and_the_prompt_comes_back(model, processor, inputs):
    short = prunesid.prune(model, processor, inputs, budget=5)
    width, full = short["input_ids"].shape[1], inputs["input_ids"].shape[1]
    expected = model.generate(**short, **GREEDY)[:, width:]
    logits = model(**short).logits
    with prunesid.pruned(model, processor, budget=5) as same:
        assert same is model
        output = model.generate(**inputs, **GREEDY)
        assert torch.equal(model(**inputs).logits, logits)
        # By position, and with the generation returned as a record.
        ids, rest = inputs["input_ids"], {k: v for k, v in inputs.items() if k != "input_ids"}
        assert torch.equal(model.generate(ids, **rest, **GREEDY), output)
        assert torch.equal(model(ids, **rest).logits, logits)
        told = model.generate(**inputs, **GREEDY, return_dict_in_generate=True, output_scores=True)
        assert torch.equal(told.sequences, output) and len(told.scores) == output.shape[1] - full
        # Inputs that are pruned already or show nothing pass unchanged.
        assert torch.equal(model.generate(**short, **GREEDY)[:, width:], expected)
    assert torch.equal(output[:, :full], inputs["input_ids"])
    assert torch.equal(output[:, full:], expected)


def test_limits_that_count_the_prompt_count_the_given_one(model, processor, inputs):
    full = inputs["input_ids"].shape[1]
    with prunesid.pruned(model, processor, budget=5):
        limited = model.generate(**inputs, do_sample=False, max_length=full + 3)
        assert torch.equal(limited, model.generate(**inputs, do_sample=False, max_new_tokens=3))


@pytest.mark.parametrize("place", ["of the call", "of the model"])
def test_limits_in_a_generation_config_are_those_of_keywords(model, processor, inputs, place):
    full = inputs["input_ids"].shape[1]
    limits = {"max_length": full + 6, "min_length": full + 3}
    with prunesid.pruned(model, processor, budget=5):
        (first, *_) = model.generate(**inputs, do_sample=False, max_new_tokens=1)[:, -1].tolist()
        # The first answer ends at once unless a limit forbids it.
        model.generation_config.eos_token_id = first
        free = model.generate(**inputs, do_sample=False, max_new_tokens=6)
        expected = model.generate(**inputs, do_sample=False, max_new_tokens=6, min_new_tokens=3)
        by_keyword = model.generate(**inputs, do_sample=False, **limits)
        if place == "of the call":
            config = GenerationConfig(do_sample=False, **limits)
            found = model.generate(**inputs, generation_config=config)
            assert (config.max_length, config.min_length) == (full + 6, full + 3)
            # A keyword takes precedence.
            shorter = model.generate(**inputs, generation_config=config, max_length=full + 4)
            assert shorter.shape[1] <= full + 4
        else:
            model.generation_config.update(**limits)
            found = model.generate(**inputs, do_sample=False)
    assert torch.equal(by_keyword, expected) and torch.equal(found, expected)
    assert not torch.equal(free, expected)


def test_beam_search_equals_generation_from_embeddings(flat, processor, inputs):
    beams = {"num_beams": 3, "do_sample": False, "max_new_tokens": 6}
    short = prunesid.prune(flat, processor, inputs, budget=5)
    width = short["input_ids"].shape[1]
    expected = flat.generate(**embedded(flat, short), **beams)
    assert torch.equal(flat.generate(**short, **beams)[:, width:], expected)
    # Beam search expands the encoder outputs in place; the inputs stay valid.
    assert torch.equal(flat.generate(**short, **beams)[:, width:], expected)
    with prunesid.pruned(flat, processor, budget=5):
        output = flat.generate(**inputs, **beams, num_return_sequences=2)
    assert torch.equal(
        output[::2, inputs["input_ids"].shape[1] :][:, : expected.shape[1]], expected
    )
    assert torch.equal(output[1::2, : inputs["input_ids"].shape[1]], inputs["input_ids"])
    assert not torch.equal(expected, flat.generate(**short, **GREEDY)[:, width:])


def test_sampling_follows_the_seed(flat, processor, inputs):
    short = prunesid.prune(flat, processor, inputs, budget=5)

    def sample(seed, **given):
        torch.manual_seed(seed)
        return flat.generate(**given, do_sample=True, max_new_tokens=6)

    width = short["input_ids"].shape[1]
    first = sample(1, **short)[:, width:]
    assert torch.equal(first, sample(1, **embedded(flat, short)))
    assert torch.equal(first, sample(1, **short)[:, width:])
    assert not torch.equal(first, sample(2, **short)[:, width:])


@pytest.mark.parametrize("budget", [16, 576])
def test_a_budget_of_all_tokens_gives_the_unmodified_model(model, processor, inputs, budget):
    logits, output = model(**inputs).logits, model.generate(**inputs, **GREEDY)
    short = prunesid.prune(model, processor, inputs, budget=budget)
    assert torch.equal(model(**short).logits, logits)
    with prunesid.pruned(model, processor, budget=budget):
        assert torch.equal(model(**inputs).logits, logits)
        assert torch.equal(model.generate(**inputs, **GREEDY), output)


def test_bfloat16(tiny_llava, processor, inputs):
    half = AutoModelForImageTextToText.from_pretrained(tiny_llava, dtype=torch.bfloat16).eval()
    short = prunesid.prune(half, processor, inputs, budget=5)
    visual = short["mm_encoder_outputs"]["image"].pooler_output
    assert {own.dtype for own in visual} == {torch.bfloat16}
    expected = half.generate(**embedded(half, short), **GREEDY)
    with prunesid.pruned(half, processor, budget=5):
        found = half.generate(**inputs, **GREEDY)[:, inputs["input_ids"].shape[1] :]
    assert torch.equal(found, expected)


@pytest.mark.parametrize("way", ["language model", "forward"])
def test_compiled_models(tiny_llava, processor, inputs, way):
    # Tracing takes seconds per layer.
    config = AutoConfig.from_pretrained(tiny_llava)
    config.text_config.num_hidden_layers = 1
    model = LlavaForConditionalGeneration(config).eval()
    short = {"do_sample": False, "max_new_tokens": 2}

    def run():
        with prunesid.pruned(model, processor, budget=5):
            return model(**inputs).logits if way == "forward" else model.generate(**inputs, **short)

    expected = run()
    if way == "forward":
        model.forward = torch.compile(model.forward, backend="eager")
    else:
        model.model.language_model.compile(backend="eager")
    compiled = vars(model).get("forward")
    torch.testing.assert_close(run(), expected, atol=1e-5, rtol=1e-4)
    assert vars(model).get("forward") is compiled


def test_right_padding_stays_on_the_right(model, processor, pictures):
    given = processor(
        images=pictures, text=list(TEXTS), padding=True, padding_side="right", return_tensors="pt"
    )
    short = prunesid.prune(model, processor, given, budget=5)
    logits = model(**short).logits
    for sample in range(len(TEXTS)):
        own = prunesid.prune(model, processor, single(processor, pictures, sample), budget=5)
        width = own["input_ids"].shape[1]
        assert torch.equal(own["input_ids"][0], short["input_ids"][sample, :width])
        torch.testing.assert_close(
            logits[sample, :width], model(**own).logits[0], atol=1e-3, rtol=1e-4
        )


def test_rotary_positions_of_three_kinds_are_given_explicitly(
    model, processor, inputs, monkeypatch
):
    plain = Llava.enter

    def turned(self, crops, layout):
        found = plain(self, crops, layout)
        place = torch.arange(len(found))
        return Entering(found.embeddings, torch.stack([0 * place, place, 2 * place]), span=30)

    monkeypatch.setattr(Llava, "enter", turned)
    positions = prunesid.prune(model, processor, inputs, budget=5)["position_ids"]
    assert positions.shape == (3, 4, 16)
    # <s> USER:, five visual tokens, seven of text, two of padding before.
    assert positions[0, 0].tolist() == [0] * 2 + [0, 1] + [2] * 5 + list(range(32, 39))
    assert positions[2, 0, 4:9].tolist() == [2, 4, 6, 8, 10]
    assert positions[1, 1].tolist()[2:12] == [*range(2, 7), *range(32, 37)]
    assert positions[:, 2].tolist() == [[0] * 8 + list(range(8))] * 3


def test_nothing_is_left_of_it(model, processor, inputs):
    def state():
        hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
        return dict(vars(model)), hooks, [module.training for module in model.modules()]

    # transformers adds its own hooks to a model on its first run.
    logits, before = model(**inputs).logits, state()
    with prunesid.pruned(model, processor, budget=5):
        assert model(**inputs).logits.shape[1] < logits.shape[1]
    assert state() == before
    with pytest.raises(RuntimeError, match="inside"), prunesid.pruned(model, processor, budget=5):
        model.generate(**inputs, **GREEDY)
        raise RuntimeError("inside")
    with pytest.raises(ValueError), prunesid.pruned(model, processor, budget=5):  # noqa: PT011
        model.generate(**{**inputs, "labels": inputs["input_ids"]})
    assert state() == before
    assert torch.equal(model(**inputs).logits, logits)
    own = model.generate
    model.generate = own
    with prunesid.pruned(model, processor, budget=5):
        assert model.generate is not own
    assert vars(model)["generate"] is own


def test_other_models_are_not_concerned(model, tiny_llava, processor, inputs):
    other = AutoModelForImageTextToText.from_pretrained(tiny_llava).eval()
    logits = other(**inputs).logits
    with prunesid.pruned(model, processor, budget=5), prunesid.pruned(other, processor, budget=3):
        short = other(**inputs).logits.shape[1]
    with prunesid.pruned(model, processor, budget=5):
        assert torch.equal(other(**inputs).logits, logits) and short < logits.shape[1]


def test_a_prompt_without_a_mask_is_whole(model, processor, pictures):
    given = single(processor, pictures, 0)
    expected = model.generate(**prunesid.prune(model, processor, given, budget=5), **GREEDY)
    del given["attention_mask"]
    found = model.generate(**prunesid.prune(model, processor, given, budget=5), **GREEDY)
    assert torch.equal(found, expected)


def test_inputs_that_show_nothing_stay_as_they_are(model, processor, pictures):
    given = single(processor, pictures, 2)
    assert dict(prunesid.prune(model, processor, given, budget=5)) == dict(given)


# Bugs found in other implementations


def test_upstream_bug_placeholder_count(model, processor, inputs):
    """Every prompt of a batch has as many placeholders as tokens that enter it."""
    for budget in (1, 5, 15):
        for method in ("prunesid", "visionzip", "pool", "grid"):
            # One token is too few for two kinds; the grid nearest to 15 cells has 16.
            if (method, budget) in (("visionzip", 1), ("pool", 15)):
                continue
            short = prunesid.prune(model, processor, inputs, method, budget)
            places, counts = entering_counts(model, short)
            assert places == [sum(counts[number] for number in own) for own in SHOWN]
            assert max(counts) <= budget
            model(**short)


def test_upstream_bug_ratio_silently_ignored(model, processor, inputs):
    """Another budget lets another number of tokens enter, and no argument is ignored."""
    widths = {}
    for budget in (3, 5, 11):
        short = prunesid.prune(model, processor, inputs, budget=budget)
        assert entering_counts(model, short)[1] == [budget] * 4
        with prunesid.pruned(model, processor, budget=budget):
            widths[budget] = model(**inputs).logits.shape[1]
    assert len(set(widths.values())) == 3
    for typo in ({"ratio": 0.1}, {"num_group": 4}, {"retain": 64}):
        with pytest.raises(ValueError, match="Unknown parameter of prunesid"):
            prunesid.prune(model, processor, inputs, **typo)
        with (
            pytest.raises(ValueError, match="Unknown parameter of prunesid"),
            prunesid.pruned(model, processor, **typo),
        ):
            pass


# Errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "prunesids"}, "Did you mean 'prunesid'"),
        ({"method": "tome", "budget": 1}, "leave at least 2 of 16"),
        ({"preset": "papers"}, "Did you mean 'paper'"),
        ({"budget": 0}, "positive number of tokens"),
        ({"budget": 0.1}, "positive number of tokens"),
        ({"budget": True}, "positive number of tokens"),
        ({"options": {"newline": "keep"}}, "Unknown parameter of the model family llava"),
    ],
)
def test_what_cannot_be_done_is_said_at_once(model, processor, inputs, arguments, message):
    with pytest.raises(ValueError, match=message):
        prunesid.prune(model, processor, inputs, **arguments)
    with pytest.raises(ValueError, match=message), prunesid.pruned(model, processor, **arguments):
        raise AssertionError("the block ran")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("labels", "ids", "labels: pruned inputs are for inference"),
        ("position_ids", "ids", "position_ids: positions follow"),
        ("inputs_embeds", "ids", "inputs_embeds: the prompt has to be token ids"),
        ("vision_feature_layer", -1, "vision_feature_layer: features are those"),
        ("max_new_tokens", 5, "max_new_tokens: not returned by a processor"),
        ("attention_mask", None, "attention_mask: needed for a batch"),
        ("attention_mask", "short", "attention_mask must be"),
        ("input_ids", None, "input_ids: missing"),
    ],
)
def test_inputs_that_make_no_sense_are_refused(model, processor, inputs, name, value, message):
    stand_in = {"ids": inputs["input_ids"], "short": inputs["attention_mask"][:, 1:]}
    given = {**inputs, name: stand_in.get(value, value)}
    with pytest.raises(ValueError, match=message):
        prunesid.prune(model, processor, given, budget=5)


def test_placeholders_have_to_fit_the_images(model, processor, pictures):
    given = single(processor, pictures, 0)
    ids, mask = given["input_ids"], given["attention_mask"]
    place = int((ids[0] == model.config.image_token_id).nonzero()[3])
    fewer = {
        **given,
        "input_ids": torch.cat([ids[:, :place], ids[:, place + 1 :]], dim=1),
        "attention_mask": mask[:, 1:],
    }
    with pytest.raises(ValueError, match="enters the model as 16 tokens, but prompt 0 has 15"):
        prunesid.prune(model, processor, fewer, budget=5)
    more = {**given, "pixel_values": given["pixel_values"].repeat(2, 1, 1, 1)}
    with pytest.raises(ValueError, match="hold 2 media of the kind image"):
        prunesid.prune(model, processor, more, budget=5)


def test_training_and_nesting_are_refused(model, processor, inputs):
    with prunesid.pruned(model, processor, budget=5):
        with (
            pytest.raises(ValueError, match="pruned already"),
            prunesid.pruned(model, processor, budget=3),
        ):
            raise AssertionError("the block ran")
        assert model(**inputs).logits.shape[1] == 16
    model.model.language_model.train()
    with pytest.raises(ValueError, match="training mode"):
        prunesid.prune(model, processor, inputs, budget=5)
    assert model.model.language_model.training


def test_an_unsupported_model_is_called_so_in_any_mode(processor, inputs):
    stranger = SimpleNamespace(config=SimpleNamespace(model_type="gpt2"))
    with pytest.raises(ValueError, match="Unknown model family 'gpt2'"):
        prunesid.prune(stranger, processor, inputs, budget=5)


def test_a_filled_cache_is_refused(model, processor, inputs):
    with (
        prunesid.pruned(model, processor, budget=5),
        pytest.raises(ValueError, match="past_key_values: .* empty cache"),
    ):
        model.generate(**inputs, **GREEDY, past_key_values=object())
