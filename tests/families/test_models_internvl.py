"""The InternVL3 adapter against transformers' own model."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from builders.anyres_models import pictures
from builders.internvl_models import SHAPES, save_tiny_internvl
from builders.reference_decoding import slow_greedy
from builders.video_llava_models import clip
from transformers import AutoModelForImageTextToText

from prunesid import families
from prunesid.core.questions import Question
from prunesid.families.adapter import kept_crops
from prunesid.families.towers.internvit import cell_order, shuffled, tokens_of
from prunesid.generate import engine
from prunesid.images.medium import IMAGE, VIDEO
from prunesid.methods import features
from prunesid.methods.features import Needs

QUESTION = "is there a red circle ?"
NEEDS = Needs(
    cls_attention=True,
    keys=True,
    projected=True,
    last_attention=True,
    last_keys=True,
    last_cls_attention=True,
    layers=frozenset({1}),
)
CHOICES = ("tokens", "patches")


@pytest.fixture(scope="module")
def folder(tiny_llava, tmp_path_factory):
    path = tmp_path_factory.mktemp("tiny_internvl")
    save_tiny_internvl(path, tiny_llava)
    return path


@pytest.fixture(scope="module")
def plain(folder):
    return AutoModelForImageTextToText.from_pretrained(folder).eval()


@pytest.fixture(scope="module", params=CHOICES)
def adapter(request, folder):
    return families.load(folder, choose=request.param)


@pytest.fixture(scope="module")
def tokens(folder):
    return families.load(folder)


@pytest.fixture(scope="module")
def inputs(tokens):
    return tokens.preprocess(pictures(SHAPES))


def entering(adapter, kept, records, name):
    return [
        adapter.enter(kept_crops(kept, medium), json.loads(json.dumps(medium.layout))).embeddings
        for medium in records.inputs[name]
    ]


@torch.no_grad()
def theirs(plain, pixels):
    """(tiles, 4, E) as the model itself makes them."""
    return plain.get_image_features(pixel_values=pixels).pooler_output


def frames_text(adapter, frames, own):
    """Token ids of a clip as the processor writes it: `own` placeholders a frame."""
    image = adapter.placeholders[IMAGE]
    text = "\n".join(f"Frame{n}: <img>{'<IMG_CONTEXT>' * own}</img>" for n in range(1, frames + 1))
    ids = adapter.processor.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert ids.count(image) == frames * own
    return ids


def prompt_ids(adapter, counts, clip_frames=None):
    """A prompt as transformers' processor makes it, of images of `counts` tokens or of one clip."""
    tokenizer, image = adapter.processor.tokenizer, "<IMG_CONTEXT>"
    kinds = [IMAGE] * len(counts) if clip_frames is None else [VIDEO]
    text = adapter.text(QUESTION, kinds)
    for count in counts:
        text = text.replace(f"{image}\n", f"<img>{'[]' * count}</img>\n", 1)
    if clip_frames is not None:
        whole = "\n".join(f"Frame{n}: <img>{'[]' * 4}</img>" for n in range(1, clip_frames + 1))
        text = text.replace("<video>", whole)
    return torch.tensor([tokenizer(text.replace("[]", image))["input_ids"]])


def test_tiles_are_the_processor_s_and_the_thumbnail_comes_last(tokens, inputs):
    tiles = [rows * columns + (rows * columns > 1) for rows, columns in SHAPES.values()]
    assert inputs["image_tiles"].tolist() == tiles
    processor = tokens.processor.image_processor
    whole = processor(pictures(SHAPES), crop_to_patches=True, return_tensors="pt")
    assert torch.equal(inputs["pixel_values"], whole["pixel_values"])
    # The last tile is what the whole image is without tiles.
    single = processor(pictures(SHAPES), crop_to_patches=False, return_tensors="pt")
    last = torch.tensor(tiles).cumsum(0) - 1
    assert torch.equal(inputs["pixel_values"][last], single["pixel_values"])
    assert tokens.most_crops == 7


def test_pixel_shuffle_is_the_model_s(plain):
    patches = torch.randn(3, 64, 5)
    expected = plain.model.pixel_shuffle(patches.view(3, 8, 8, 5), 0.5).flatten(1, 2)
    assert torch.equal(shuffled(patches), expected)
    order = cell_order(8)
    assert order[:6].tolist() == [0, 1, 8, 9, 2, 3]
    for number in range(3):
        assert torch.equal(tokens_of(patches[number], torch.arange(64), 8), expected[number])
    with pytest.raises(ValueError, match="5 x 5 patches"):
        cell_order(5)


def test_patches_that_are_kept_make_tokens_cell_by_cell():
    # Cells of a 4 x 4 square: 0 1 4 5, 2 3 6 7, 8 9 12 13, 10 11 14 15.
    index = torch.tensor([2, 4, 8, 9, 12, 13, 0, 15, 3, -1])
    own = torch.arange(10.0)[:, None]
    at = {int(patch): float(place) for place, patch in enumerate(index)}
    found = tokens_of(own, index, 4)
    expected = [[0, 4, 2, 3], [8, 9, 12, 13], [15, -1, -1, -1]]
    assert found.tolist() == [[at[patch] for patch in row] for row in expected]


def test_every_field_is_that_of_the_four_patches(tokens, plain, inputs, folder):
    (record,) = tokens.encode(inputs, NEEDS).groups
    (patch,) = families.load(folder, choose="patches").encode(inputs, NEEDS).groups
    eager = copy.deepcopy(plain.model.vision_tower)
    eager.set_attn_implementation("eager")
    with torch.no_grad():
        states = eager(inputs["pixel_values"], output_hidden_states=True, output_attentions=True)
    block = eager.encoder.layer[-1]
    with torch.no_grad():
        normed = block.layernorm_before(states.hidden_states[-2])
        keys = block.attention.k_norm(block.attention.k_proj(normed))[:, 1:]
    last = states.hidden_states[-1]
    expected = {
        "features": last[:, 1:],
        "cls": last[:, 0],
        "cls_attention": states.attentions[-1][:, :, 0, 1:],
        "last_cls_attention": states.attentions[-1][:, :, 0, 1:].mean(1),
        "last_keys": keys,
    }
    for name, value in expected.items():
        torch.testing.assert_close(getattr(patch, name), value, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(patch.hidden[1], states.hidden_states[2][:, 1:])
    assert (patch.grid, record.grid) == ((4, 4), (2, 2))
    torch.testing.assert_close(record.projected, theirs(plain, inputs["pixel_values"]))
    cells = ((0, 1, 4, 5), (2, 3, 6, 7), (8, 9, 12, 13), (10, 11, 14, 15))
    for number, cell in enumerate(map(list, cells)):
        for name in ("features", "last_keys"):
            own = torch.cat(getattr(patch, name)[:, cell].unbind(1), -1)
            assert torch.equal(getattr(record, name)[:, number], own)
        assert torch.equal(record.hidden[1][:, number], patch.hidden[1][:, cell].flatten(1))
        assert torch.equal(record.keys[:, :, number], patch.keys[:, :, cell].flatten(2))
        for name in ("cls_attention", "last_cls_attention", "last_attention"):
            own = getattr(patch, name)[..., cell].sum(-1)
            torch.testing.assert_close(getattr(record, name)[..., number], own)
        for each in cell:
            assert torch.equal(patch.projected[:, each], record.projected[:, number])
    assert torch.equal(record.cls, torch.cat([patch.cls] * 4, dim=1))


def test_images_kept_whole_give_logits_and_answers_of_the_model(adapter, plain, inputs):
    names = [str(number) for number in range(len(SHAPES))]
    records = adapter.encode(inputs, names=names)
    kept = records.all_tokens()
    questions = [Question(name, name, QUESTION, {"max_new_tokens": 5}) for name in names]
    together = engine.answer(adapter, kept, records.inputs, questions, batch_size=3)
    first = 0
    for name, count, ours in zip(names, inputs["image_tiles"].tolist(), together, strict=True):
        pixels = inputs["pixel_values"][first : first + count]
        first += count
        (visual,) = entering(adapter, kept, records, name)
        torch.testing.assert_close(visual, theirs(plain, pixels).flatten(0, 1))
        ids = prompt_ids(adapter, [4 * count])
        given = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": pixels}
        with torch.no_grad():
            expected = plain(**given).logits[0]
            answer = plain.generate(**given, do_sample=False, max_new_tokens=5)
        before, after = map(torch.tensor, adapter.prompt(QUESTION, [IMAGE]).texts)
        embedded = torch.cat([adapter.embed(before), visual, adapter.embed(after)])[None]
        found = adapter.logits(adapter.run(embedded, adapter.new_cache()))[0]
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)
        assert ours.answer == adapter.decode(answer[0, ids.shape[1] :])
        assert ours.tokens == 4 * count


def test_several_images_and_clips_kept_whole(adapter, plain):
    shapes = list(SHAPES)
    cases = [pictures(shapes[2:4]), [clip(0)], [clip(1)]]
    names = ["two", "two", "a clip", "another"]
    whole = adapter.preprocess([medium for own in cases for medium in own])
    records = adapter.encode(whole, names=names)
    assert [m.kind for own in records.inputs.values() for m in own] == [IMAGE] * 2 + [VIDEO] * 2
    questions = [
        Question(name, name, QUESTION, {"max_new_tokens": 5}) for name in dict.fromkeys(names)
    ]
    together = engine.answer(adapter, records.all_tokens(), records.inputs, questions)
    for own, ours in zip(cases, together, strict=True):
        alone = adapter.preprocess(own)
        if len(own) == 2:
            ids = prompt_ids(adapter, [4 * count for count in alone["image_tiles"].tolist()])
        else:
            assert alone["image_tiles"].tolist() == [8]
            ids = prompt_ids(adapter, [], clip_frames=8)
        given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        answer = plain.generate(
            **given, pixel_values=alone["pixel_values"], do_sample=False, max_new_tokens=5
        )
        assert ours.answer == adapter.decode(answer[0, ids.shape[1] :])
        # The same through `mm_encoder_outputs` and the prompt that `prune` reads.
        rewritten, visual = adapter.of_prompts(ids, {"pixel_values": alone["pixel_values"]})
        assert visual["image_tiles"].tolist() == alone["image_tiles"].tolist()
        assert visual["media_types"].tolist() == alone["media_types"].tolist()
        held = sum(int((rewritten == token).sum()) for token in adapter.placeholders.values())
        assert held == ours.tokens


@pytest.mark.parametrize("budget", [6, 13])
def test_pruned_answers_equal_a_slow_reference(adapter, plain, budget):
    """Tokens of the model itself, those that were dropped taken out by hand."""
    media = [*pictures(list(SHAPES)[1:4]), clip(0), clip(1, frames=3)]
    whole = adapter.preprocess(media)
    records = adapter.encode(whole)
    kept = records.compress("random", budget=max(budget, 8), seed=3)
    tower = plain.model.vision_tower
    with torch.no_grad():
        patches = tower(whole["pixel_values"]).last_hidden_state[:, 1:]
        each = theirs(plain, whole["pixel_values"])
    for number, medium in enumerate(media):
        (own,) = records.inputs[str(number)]
        parts = []
        for place, row in enumerate(own.rows):
            index = kept.index[row, : int(kept.count[row])].tolist()
            if place and own.kind == VIDEO:
                ids = frames_text(adapter, place + 1, 4)
                edge = [n for n, token in enumerate(ids) if token == adapter.placeholders[IMAGE]]
                parts.append(adapter.embed(torch.tensor(ids[edge[-5] + 1 : edge[-4]])))
            if adapter.options["choose"] == "tokens":
                parts.append(each[row, index])
            else:
                tokens = tokens_of(patches[row, index], torch.tensor(index), 4)
                assert len(index) % 4 == 0 and len(tokens) == len(index) // 4
                with torch.no_grad():
                    parts.append(plain.model.multi_modal_projector(tokens))
        visual = torch.cat(parts)
        labels = (len(own.rows) - 1) * 3 if own.kind == VIDEO else 0
        assert len(visual) == min(4 * len(own.rows), max(budget, 8)) + labels
        kind = VIDEO if hasattr(medium, "frames") else IMAGE
        texts = adapter.prompt(QUESTION, [kind]).texts
        question = Question("0", str(number), QUESTION, {"max_new_tokens": 6})
        (ours,) = engine.answer(adapter, kept, records.inputs, [question])
        assert ours.answer == adapter.decode(
            slow_greedy(plain, texts, [visual], adapter.end_ids, 6)
        )
        assert ours.answer == engine.answer_plainly(adapter, kept, [own], question)


@pytest.mark.parametrize("method", features.list_feature_methods())
def test_every_method_that_its_records_allow(adapter, inputs, method):
    needs = features.requirements_in_crops(method)
    records = adapter.encode(inputs, needs)
    if needs.relevance:
        vector = adapter.question("embeddings", QUESTION, [IMAGE])
        owners = {name: name for name in records.names}
        records = records.asked(owners, dict.fromkeys(owners, vector), "embeddings")
    kept = records.compress(method, budget=8)
    for name, count in zip(records.names, inputs["image_tiles"].tolist(), strict=True):
        (visual,) = entering(adapter, kept, records, name)
        # The square that is nearest to the budget may be larger than it.
        most = 4 * count if method == "pool" else min(8, 4 * count)
        assert 1 <= len(visual) <= most and bool(visual.isfinite().all())


def test_a_smaller_tile_is_the_tower_s_own_pass_of_it(tokens, plain, inputs):
    plans = tokens.plans("downsample", 7, {})
    kept, records = tokens.reduce(inputs, plans)
    shares = records.budgets(7)
    # Of four tokens a tile keeps all of them or the one that is the whole tile.
    assert kept.count.tolist() == [4 if share >= 4 else 1 for share in shares.tolist()]
    small = torch.nn.functional.interpolate(
        inputs["pixel_values"], (28, 28), mode="bicubic", antialias=True
    )
    own, whole = theirs(plain, small), theirs(plain, inputs["pixel_values"])
    for row, count in enumerate(kept.count.tolist()):
        found = tokens.project(kept.tokens[row, :count])
        torch.testing.assert_close(found, (whole if count == 4 else own)[row])
        assert kept.index[row, :count].tolist() == ([0, 1, 2, 3] if count == 4 else [-1])
    chosen = families.adapt(plain, tokens.processor, choose="patches")
    with pytest.raises(ValueError, match="downsample leaves tokens, not patches"):
        chosen.plans("downsample", 7, {})


def test_errors_name_the_reason(tokens, plain, inputs):
    with pytest.raises(ValueError, match="tome acts inside the vision encoder"):
        tokens.plans("tome", 4, {})
    with pytest.raises(ValueError, match="pixel_values hold 31 tiles, the prompts 32"):
        tokens.encode({**inputs, "pixel_values": inputs["pixel_values"][:-1]})
    with pytest.raises(ValueError, match="multiple of 4 placeholders, not 5"):
        tokens.of_prompts(prompt_ids(tokens, [5]), {})
    for name, value, message in (
        ("downsample_ratio", 0.25, "downsample_ratio must be 0.5"),
        ("vision_feature_select_strategy", "full", "must be 'default', not 'full'"),
        ("vision_feature_layer", 0, "must name one block's output, not 0"),
    ):
        other = copy.copy(plain)
        other.config = copy.deepcopy(plain.config)
        setattr(other.config, name, value)
        with pytest.raises(ValueError, match=message):
            families.adapt(other, tokens.processor)
