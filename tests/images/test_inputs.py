"""Preparation of images and questions: by default as the authors do, by option as transformers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from builders.family_models import FAMILIES
from builders.tiny_llava import random_images, save_tiny_llava
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, AutoTokenizer, LlamaTokenizer
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

import prunesid
from prunesid import families
from prunesid.core.questions import Question
from prunesid.families.inputs.conversations import CHECKPOINT, CONVERSATIONS, original_name, pieces
from prunesid.families.inputs.square import mean_color, squared
from prunesid.generate import engine
from prunesid.images.medium import CENTER, IMAGE, PADDED
from prunesid.pocket import WEIGHTS
from prunesid.study.config.arm import VANILLA
from prunesid.study.files.features import Head
from prunesid.study.provenance.contents import features_material
from prunesid.study.stages.answers import material_of
from prunesid.study.stages.patches import as_seen
from prunesid.study.stages.source import Runtime

QUESTION = "is there a red circle ?"
USER = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the user's questions. USER: <image>\n"
    "is there a red circle ? ASSISTANT:"
)
# (width, height): square, and with even and odd paddings on either side.
SIZES = ((56, 56), (90, 60), (61, 90), (120, 57))


def pictures():
    rng = np.random.default_rng(5)
    return [
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        for width, height in SIZES
    ]


@pytest.fixture(scope="module")
def spelling(tmp_path_factory):
    """A tiny LLaVA whose tokenizer spells words it does not know, as LLaMA's does, in bytes."""
    folder = tmp_path_factory.mktemp("spelling")
    save_tiny_llava(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    extra = sorted({word for word in USER.split() if word not in tokenizer.get_vocab()})
    # Whole words stand in for the bytes.
    tokenizer.add_tokens(extra)
    model = AutoModelForImageTextToText.from_pretrained(folder)
    torch.manual_seed(0)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    model.save_pretrained(folder)
    processor = AutoProcessor.from_pretrained(folder)
    processor.tokenizer = tokenizer
    processor.save_pretrained(folder)
    return folder


# Images


def test_a_picture_stands_in_the_middle_of_its_square():
    color = (1, 2, 3)
    for picture in pictures()[1:]:
        pixels = np.asarray(picture)
        height, width = pixels.shape[:2]
        side = max(height, width)
        expected = np.full((side, side, 3), color, np.uint8)
        top, left = (side - height) // 2, (side - width) // 2
        expected[top : top + height, left : left + width] = pixels
        assert np.array_equal(np.asarray(squared(picture, color)), expected)
    assert squared(pictures()[0], color).tobytes() == pictures()[0].tobytes()


def test_the_padding_is_clip_s_mean_color(tiny_llava):
    assert mean_color(AutoProcessor.from_pretrained(tiny_llava).image_processor) == (122, 116, 104)


def test_llava_pads_as_transformers_does_when_told_to(tiny_llava):
    theirs = LlavaImageProcessorPil(
        do_pad=True, size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56}
    )
    found = families.load(tiny_llava).preprocess(pictures())["pixel_values"]
    assert torch.equal(found, theirs(pictures(), return_tensors="pt")["pixel_values"])


def test_or_crops_as_the_processor_does_by_itself(tiny_llava):
    own = AutoProcessor.from_pretrained(tiny_llava).image_processor
    expected = own(pictures(), return_tensors="pt")["pixel_values"]
    found = families.load(tiny_llava, aspect="crop").preprocess(pictures())["pixel_values"]
    padded = families.load(tiny_llava).preprocess(pictures())["pixel_values"]
    assert torch.equal(found, expected)
    same = [torch.equal(one, other) for one, other in zip(padded, expected, strict=True)]
    assert same == [True, False, False, False]


def test_kept_patches_are_drawn_on_what_the_tower_saw(tiny_llava):
    """The report's picture is the tower's pixels without the normalization."""
    adapter = families.load(tiny_llava)
    inputs = adapter.preprocess(pictures())
    settings = adapter.processor.image_processor
    mean, std = (torch.tensor(v)[:, None, None] for v in (settings.image_mean, settings.image_std))
    for picture, pixels in zip(pictures(), inputs["pixel_values"], strict=True):
        seen = ((pixels * std + mean) * 255).permute(1, 2, 0).numpy()
        assert np.abs(as_seen(picture, (56, 56), PADDED) - seen).max() < 1.01
    for aspect, view in (("pad", PADDED), ("crop", CENTER)):
        own = families.load(tiny_llava, aspect=aspect)
        records = own.encode(own.preprocess(pictures()))
        assert [m.layout for (m,) in records.inputs.values()] == [{"view": view}] * len(SIZES)


# Questions


def test_a_question_is_asked_as_the_authors_ask_it():
    message = f"<image>\n{QUESTION}"
    assert CONVERSATIONS["vicuna_v1"].text(message) == USER
    assert CONVERSATIONS["llava_v1"].text(message) == USER.replace("user", "human")
    assert CONVERSATIONS["qwen_1_5"].text("Why?") == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert CONVERSATIONS["chatml_direct"].text("Why?") == (
        "<|im_start|>system\nAnswer the questions.<|im_end|>"
        "<|im_start|>user\nWhy?<|im_end|><|im_start|>assistant\n"
    )


@pytest.mark.parametrize(
    ("rendered", "chosen"),
    [
        ("USER: 1234 ASSISTANT:", "vicuna_v1"),
        ("<s>USER: 1234 ASSISTANT:", CHECKPOINT),
        ("USER: 1234\nASSISTANT:", "vicuna_v1"),
        (CONVERSATIONS["vicuna_v1"].text("1234"), "vicuna_v1"),
        (CONVERSATIONS["llava_v1"].text("1234"), CHECKPOINT),
        ("[INST] 1234 [/INST]", CHECKPOINT),
        ("<|im_start|>user 1234<|im_end|><|im_start|>assistant\n", "qwen_1_5"),
        ("Question: 1234 Answer:", CHECKPOINT),
        (None, "vicuna_v1"),
    ],
)
def test_the_default_is_the_conversation_whose_form_the_template_has(spelling, rendered, chosen):
    tokenizer = AutoTokenizer.from_pretrained(spelling)
    tokenizer.add_tokens(["<|im_start|>system", "You", "are", "helpful", "<|im_end|>"])
    names = ("vicuna_v1", "qwen_1_5")
    assert original_name(names, rendered, tokenizer) == chosen


def test_a_tokenizer_without_the_words_of_a_system_prompt_never_had_it(tiny_llava):
    words = AutoTokenizer.from_pretrained(tiny_llava)
    assert original_name(["vicuna_v1"], "USER: 1234 ASSISTANT:", words) == CHECKPOINT


def test_a_vicuna_is_asked_with_its_system_prompt_and_an_option_wins(spelling):
    processor = AutoProcessor.from_pretrained(spelling)
    ids = processor.tokenizer(USER)["input_ids"]
    image = processor.tokenizer.convert_tokens_to_ids("<image>")
    place = ids.index(image)
    expected = (tuple(ids[:place]), tuple(ids[place + 1 :]))
    for options in ({}, {"conv_template": "vicuna_v1"}):
        adapter = families.load(spelling, **options)
        assert adapter.text(QUESTION, [IMAGE]) == USER
        assert adapter.text(f"<image>\n{QUESTION}", [IMAGE]) == USER
        assert adapter.prompt(QUESTION, [IMAGE]).texts == expected
        assert len(adapter.prompt(QUESTION, []).texts) == 1
        with pytest.raises(ValueError, match="this one places 2"):
            adapter.prompt(f"<image> <image> {QUESTION}", [IMAGE])
    plain = families.load(spelling, conv_template="checkpoint").text(QUESTION, [IMAGE])
    assert plain == "USER: <image>\nis there a red circle ? ASSISTANT:"
    with pytest.raises(ValueError, match=r"conv_template.*Available: checkpoint, vicuna_v1"):
        families.load(spelling, conv_template="vicuna")


def test_pieces_are_tokenized_by_themselves_with_one_start():
    """A LLaMA tokenizer begins every piece with a space; a whole text has one, at its start."""
    words = ["<unk>", "<s>", "</s>", "▁", "▁a", "\n", "a", "b", "<image>"]
    tokenizer = LlamaTokenizer(
        vocab={word: number for number, word in enumerate(words)}, merges=[("▁", "a")]
    )
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    tokenizer.add_bos_token = True
    texts, marks = pieces(tokenizer, "a<image>\nb<image>", ["<image>"])
    start, space, line = (words.index(word) for word in ("<s>", "▁", "\n"))
    assert marks == ["<image>", "<image>"]
    assert texts == [[start, words.index("▁a")], [space, line, words.index("b")], []]
    whole = tokenizer("a<image>\nb<image>")["input_ids"]
    assert whole.count(space) == 0


# Pocket-LLaVA


def test_pocket_llava_is_asked_and_shown_as_ever():
    adapter = families.load(WEIGHTS)
    processor = AutoProcessor.from_pretrained(WEIGHTS)
    content = [{"type": "image"}, {"type": "text", "text": "How many circles are there?"}]
    text = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )
    assert adapter.text("How many circles are there?", [IMAGE]) == text
    before, after = adapter.prompt("How many circles are there?", [IMAGE]).texts
    ids = processor.tokenizer(text)["input_ids"]
    assert [*before, adapter.placeholders[IMAGE], *after] == ids
    shown = random_images(2, size=336)
    expected = processor.image_processor(shown, return_tensors="pt")["pixel_values"]
    assert torch.equal(adapter.preprocess(shown)["pixel_values"], expected)
    asked = families.load(WEIGHTS, conv_template="vicuna_v1").text("How?", [IMAGE])
    assert asked == CONVERSATIONS["vicuna_v1"].text("<image>\nHow?")


# The same everywhere


@pytest.mark.parametrize("options", [{}, {"aspect": "crop", "conv_template": "checkpoint"}])
def test_a_user_s_own_call_is_what_the_pipeline_does(spelling, options):
    model = AutoModelForImageTextToText.from_pretrained(spelling).eval()
    processor = AutoProcessor.from_pretrained(spelling)
    adapter = families.load(spelling, **options)
    picture = pictures()[1]
    text, images = prunesid.prepare(model, processor, QUESTION, [picture], options=options)
    inputs = processor(text=text, images=images, return_tensors="pt")
    expected = adapter.preprocess([picture])["pixel_values"]
    assert torch.equal(inputs["pixel_values"], expected)
    with prunesid.pruned(model, processor, budget=5, options=options):
        output = model.generate(**inputs, do_sample=False, max_new_tokens=5)
    records = adapter.encode({"pixel_values": expected}, names=["a"])
    kept = records.compress("prunesid", budget=5)
    asked = Question("a0", "a", QUESTION, {"max_new_tokens": 5})
    (found,) = engine.answer(adapter, kept, records.inputs, [asked], batch_size=1)
    assert adapter.decode(output[0, inputs["input_ids"].shape[1] :].tolist()) == found.answer


@pytest.mark.parametrize("family", ["llava_next", "mini_gemini"])
def test_every_family_prepares_for_its_processor(tiny_llava, tmp_path, family):
    folder = tmp_path / family
    FAMILIES[family](folder, tiny_llava)
    adapter = families.load(folder)
    model, processor = adapter.model, adapter.processor
    shown = pictures()[1:2]
    text, images = prunesid.prepare(model, processor, QUESTION, shown)
    inputs = processor(text=text, images=images, return_tensors="pt")
    for name, expected in adapter.preprocess(shown).items():
        assert torch.equal(inputs[name], expected)
    ids = inputs["input_ids"][0].tolist()
    before, after = adapter.prompt(QUESTION, [IMAGE]).texts
    visual = ids[len(before) : len(ids) - len(after)]
    assert set(visual) == {adapter.placeholders[IMAGE]}
    assert [*before, *visual, *after] == ids


def test_the_options_are_part_of_what_identifies_features_and_answers():
    found = []
    for options in ((), (("aspect", "crop"),), (("conv_template", "checkpoint"),)):
        runtime = Runtime("pocket", options=options)
        material = features_material("b", runtime, 8)
        head = Head({}, (), (), None, {}, None, "", material, {})
        found += [material, material_of("all", head, runtime, VANILLA)]
    assert len({repr(each) for each in found}) == 6


def test_every_family_says_what_it_makes_of_images_and_questions():
    for model_type in [*families.families(), "mgm"]:
        family = families.family_of(model_type)
        assert family.padding and family.prompt
