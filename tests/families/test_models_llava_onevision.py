"""The LLaVA-OneVision adapter against transformers' own model."""

from __future__ import annotations

import copy
import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from builders.anyres_models import ONEVISION_SIZES, pictures, save_tiny_onevision
from builders.reference_decoding import slow_greedy
from builders.video_llava_models import clip
from PIL import Image
from torch.nn.functional import interpolate
from transformers import AutoModelForImageTextToText
from transformers.models.llava_onevision.modeling_llava_onevision import (
    LlavaOnevisionModel,
    image_size_to_num_patches,
)

import prunesid
from prunesid import families
from prunesid.core.needs import Needs
from prunesid.core.questions import Question
from prunesid.families.adapter import kept_crops
from prunesid.families.inputs.anyres_max import pool_frames
from prunesid.generate import engine
from prunesid.images.medium import IMAGE, PADDED, VIDEO, WHOLE

QUESTION = "is there a red circle ?"
CONTEXTS = (QUESTION, "what color is the star ?", "how many bars are taller than 3 ?")
SIZES = ONEVISION_SIZES
SIDE = 4
# Rows and columns of each map; None where nothing of it is left.
MAPS = ((4, 4), (4, 12), (12, 4), (8, 8), (8, 6), (7, 8), (4, 4), None, None)


@pytest.fixture(scope="module")
def folder(tiny_llava, tmp_path_factory):
    path = tmp_path_factory.mktemp("tiny_onevision")
    save_tiny_onevision(path, tiny_llava)
    return path


@pytest.fixture(scope="module")
def plain(folder):
    return AutoModelForImageTextToText.from_pretrained(folder).eval()


@pytest.fixture(scope="module")
def adapter(folder):
    return families.load(folder)


@pytest.fixture(scope="module")
def inputs(adapter):
    return adapter.preprocess(shown())


def shown():
    return pictures(SIZES)


def theirs(inputs):
    """Only what the model's own processor gives."""
    return {name: value for name, value in inputs.items() if name != "pixel_values_squares"}


def packed(plain, inputs):
    with torch.no_grad():
        return plain.get_image_features(**theirs(inputs)).pooler_output


def entering(adapter, kept, records, name):
    return [
        adapter.enter(kept_crops(kept, medium), json.loads(json.dumps(medium.layout))).embeddings
        for medium in records.inputs[name]
    ]


def whole_prompt(adapter, counts, question=QUESTION):
    prompt = adapter.prompt(question, [IMAGE] * len(counts))
    ids = list(prompt.texts[0])
    for count, text in zip(counts, prompt.texts[1:], strict=True):
        ids += [*[adapter.placeholders[IMAGE]] * count, *text]
    return torch.tensor([ids])


def reference_map(plain, tokens, size):
    """(rows * columns, X) of base and sub-crops (C, T, X), by the model's own packing.

    The model marks the ends of rows with the newline it is given; here they are told by a channel.
    """
    marked = torch.cat([tokens, torch.zeros(*tokens.shape[:2], 1)], dim=2)
    newline = torch.zeros(marked.shape[2])
    newline[-1] = 1
    (found,), _ = plain.model.pack_image_features(
        [marked], torch.tensor([size]), newline, plain.config.vision_aspect_ratio
    )
    high = found[SIDE**2 :]
    return high[high[:, -1] == 0][:, :-1]


@torch.no_grad()
def tower_states(plain, inputs, number):
    """Of the real crops of an image: hidden states of every block (C, T, D), and attention maps."""
    count = image_size_to_num_patches(list(SIZES[number]), plain.config.image_grid_pinpoints, 56)
    eager = copy.deepcopy(plain.model.vision_tower)
    eager.set_attn_implementation("eager")
    return eager(
        inputs["pixel_values"][number, :count], output_hidden_states=True, output_attentions=True
    )


def test_preprocessing_is_the_processor_s(adapter, inputs):
    alone = adapter.processor.image_processor(shown(), return_tensors="pt")
    together = adapter.processor.image_processor([shown()], return_tensors="pt")
    for name in ("pixel_values", "image_sizes"):
        assert torch.equal(inputs[name], alone[name])
    assert inputs["batch_num_images"].tolist() == [1] * len(SIZES)
    assert torch.equal(inputs["pixel_values_squares"][:, None], together["pixel_values"])
    assert "pixel_values_squares" not in adapter.preprocess(shown()[:1])


def test_rows_are_the_base_crop_and_the_map(adapter, inputs):
    records = adapter.encode(inputs, names=[f"image {n}" for n in range(len(SIZES))])
    assert records.share is None and adapter.num_tokens is None
    sizes = records.sizes
    grids = {
        row: record.grid
        for record, rows in zip(records.groups, records.members, strict=True)
        for row in rows
    }
    for (medium,), expected in zip(records.inputs.values(), MAPS, strict=True):
        assert medium.kind == IMAGE and medium.layout["view"] == WHOLE
        own = [(SIDE, SIDE), *([expected] if expected else [])]
        assert [grids[row] for row in medium.rows] == own
        assert [sizes[row] for row in medium.rows] == [rows * columns for rows, columns in own]
    ids = {
        row: name
        for group, rows in zip(records.groups, records.members, strict=True)
        for row, name in zip(rows, group.image_ids, strict=True)
    }
    (medium,) = records.inputs["image 3"]
    assert [ids[row] for row in medium.rows] == ["image 3/0", "image 3/1"]
    # What the base crop does not take goes to the map.
    budgets = records.budgets(50)
    assert budgets[list(medium.rows)].tolist() == [16, 34]
    assert records.budgets(21)[list(medium.rows)].tolist() == [11, 10]


def test_an_image_kept_whole_enters_as_the_model_packs_it(adapter, plain, inputs):
    records = adapter.encode(inputs)
    kept = records.all_tokens()
    for name, expected in zip(records.names, packed(plain, inputs), strict=True):
        (found,) = entering(adapter, kept, records, name)
        assert torch.equal(found, expected)


def test_every_field_is_packed_as_the_features_are(adapter, plain, inputs):
    needs = Needs(
        cls_attention=True,
        last_cls_attention=True,
        keys=True,
        projected=True,
        layers=frozenset({1}),
    )
    records = adapter.encode(inputs, needs)
    places = {
        row: (group, n)
        for group, rows in zip(records.groups, records.members, strict=True)
        for n, row in enumerate(rows)
    }
    tower = adapter.model.model.vision_tower
    for number, size in enumerate(SIZES):
        states = tower_states(plain, inputs, number)
        with torch.no_grad():
            projected = plain.model.multi_modal_projector(states.hidden_states[-1])
            last = tower.encoder.layers[-1]
            keys = last.self_attn.k_proj(last.layer_norm1(states.hidden_states[-2]))
        # The mean attention that each patch receives, by head.
        received = states.attentions[-1].mean(dim=2).transpose(1, 2)
        expected = {
            "features": projected,
            "projected": projected,
            "hidden": states.hidden_states[2],
            "cls_attention": received,
            "last_cls_attention": received.mean(dim=2, keepdim=True),
            "keys": keys,
        }
        (medium,) = records.inputs[str(number)]
        for which, row in enumerate(medium.rows):
            group, place = places[row]
            assert group.grid == ((SIDE, SIDE), MAPS[number])[which]
            found = {
                "features": group.features[place],
                "projected": group.projected[place],
                "hidden": group.hidden[1][place],
                "cls_attention": group.cls_attention[place].T,
                "last_cls_attention": group.last_cls_attention[place][:, None],
                "keys": group.keys[place].transpose(0, 1).flatten(1),
            }
            for name, tokens in expected.items():
                own = reference_map(plain, tokens, size) if which else tokens[0]
                torch.testing.assert_close(found[name], own, rtol=1e-5, atol=1e-5)
        (base, place) = places[medium.rows[0]]
        torch.testing.assert_close(base.cls_attention[place].sum(-1), torch.ones(2))


def test_a_large_map_is_shrunk_and_its_tokens_are_mixed(adapter, plain, inputs):
    states = tower_states(plain, inputs, 3)
    with torch.no_grad():
        tokens = plain.model.multi_modal_projector(states.hidden_states[-1])[1:]
    spread = tokens.view(3, 3, SIDE, SIDE, -1).permute(0, 2, 1, 3, 4).reshape(12, 12, -1)
    records = adapter.encode(adapter.preprocess(shown()[3:4]))
    high = records.groups[1].features[0].view(8, 8, -1)
    # 12 cells on 8: the second token lies between the cells 1.5 * 1.5 - 0.5 = 1.75.
    mixed = interpolate(spread.permute(2, 0, 1)[None], (8, 8), mode="bilinear")[0]
    torch.testing.assert_close(high, mixed.permute(1, 2, 0), rtol=1e-5, atol=1e-5)
    edge = 0.75 * spread[0, 0] + 0.25 * spread[0, 1]
    below = 0.75 * spread[1, 0] + 0.25 * spread[1, 1]
    torch.testing.assert_close(high[0, 0], 0.75 * edge + 0.25 * below, rtol=1e-5, atol=1e-5)


def test_all_tokens_give_the_logits_and_answers_of_the_unmodified_model(adapter, plain):
    for picture in shown():
        whole = adapter.preprocess([picture])
        records = adapter.encode(whole)
        visual = entering(adapter, records.all_tokens(), records, "0")
        ids = whole_prompt(adapter, [len(visual[0])])
        given = {"input_ids": ids, "attention_mask": torch.ones_like(ids), **whole}
        with torch.no_grad():
            expected = plain(**given).logits[0]
            answer = plain.generate(**given, do_sample=False, max_new_tokens=6)
        before, after = (
            adapter.embed(torch.tensor(t)) for t in adapter.prompt(QUESTION, [IMAGE]).texts
        )
        embedded = torch.cat([before, *visual, after])[None]
        found = adapter.logits(adapter.run(embedded, adapter.new_cache()))[0]
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)
        question = Question("0", "0", QUESTION, {"max_new_tokens": 6})
        ours = engine.answer_plainly(adapter, records.all_tokens(), records.inputs["0"], question)
        assert ours == adapter.decode(answer[0, ids.shape[1] :])


def test_pruned_generation_equals_a_reference_from_inputs_embeds(adapter, plain, inputs):
    records = adapter.encode(inputs)
    kept = records.compress("random", budget=24, seed=3)
    for number, size in enumerate(SIZES):
        (medium,) = records.inputs[str(number)]
        with torch.no_grad():
            states = tower_states(plain, inputs, number).hidden_states[-1]
            tokens = plain.model.multi_modal_projector(states)
        rows = [tokens[0], reference_map(plain, tokens, size)]
        visual = torch.cat(
            [
                own[kept.index[row, : int(kept.count[row])]]
                for own, row in zip(rows, medium.rows, strict=False)
            ]
        )
        whole = len(medium.rows) == 1
        if whole:
            visual = packed(plain, inputs)[number]
        else:
            assert len(visual) == 24
        texts = adapter.prompt(QUESTION, [IMAGE]).texts
        question = Question("0", str(number), QUESTION, {"max_new_tokens": 6})
        ours = engine.answer_plainly(adapter, kept, [medium], question)
        assert ours == adapter.decode(slow_greedy(plain, texts, [visual], adapter.end_ids, 6))


def test_ragged_batches_equal_one_at_a_time(adapter, inputs):
    names = [f"image {number}" for number in range(len(SIZES))]
    records = adapter.encode(inputs, Needs(cls_attention=True), names)
    kept = records.compress("prunesid", budget=20, preset="release", cls_token=False)
    questions = [
        Question(f"{name} {number}", name, text, {"max_new_tokens": 5})
        for name in names
        for number, text in enumerate(CONTEXTS)
    ]
    together = engine.answer(adapter, kept, records.inputs, questions, batch_size=7)
    assert together == engine.answer(adapter, kept, records.inputs, questions, batch_size=1)
    plainly = [
        engine.answer_plainly(adapter, kept, records.inputs[question.image_id], question)
        for question in questions
    ]
    assert [each.answer for each in together] == plainly
    assert len({each.answer for each in together}) > 5


def test_several_images_of_one_question_are_squares(adapter, plain):
    media = shown()[1:4]
    inputs = adapter.preprocess([*media, shown()[0]])
    records = adapter.encode(inputs, names=["all", "all", "all", "one"])
    assert [m.layout for m in records.inputs["all"]] == [{"view": PADDED, "map": None}] * 3
    layout = records.inputs["one"][0].layout
    assert (layout["view"], layout["map"]) == (WHOLE, [4, 4])
    own = adapter.processor.image_processor([media], return_tensors="pt")
    given = {name: torch.as_tensor(own[name]) for name in own}
    assert given["batch_num_images"].tolist() == [3]
    # A square and a newline each.
    ids = whole_prompt(adapter, [SIDE**2 + 1] * 3)
    with torch.no_grad():
        expected = plain.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            **given,
            do_sample=False,
            max_new_tokens=6,
        )
    question = Question("0", "all", QUESTION, {"max_new_tokens": 6})
    (answer,) = engine.answer(adapter, records.all_tokens(), records.inputs, [question])
    assert answer.answer == adapter.decode(expected[0, ids.shape[1] :])
    assert answer.tokens == 3 * (SIDE**2 + 1)
    kept = records.compress("random", budget=6)
    (pruned,) = engine.answer(adapter, kept, records.inputs, [question])
    visual = [
        packed(plain, given)[n][kept.index[row, :6]]
        for n, row in enumerate(m.rows[0] for m in records.inputs["all"])
    ]
    texts = adapter.prompt(QUESTION, [IMAGE] * 3).texts
    assert pruned.tokens == 18
    assert pruned.answer == adapter.decode(slow_greedy(plain, texts, visual, adapter.end_ids, 6))


def test_an_image_gives_the_same_alone_and_in_company(adapter, inputs):
    together = adapter.encode(inputs, names=[f"image {n}" for n in range(len(SIZES))])
    kept = together.compress("random", budget=21)
    for number, picture in enumerate(shown()):
        alone = adapter.encode(adapter.preprocess([picture]), names=[f"image {number}"])
        own = alone.compress("random", budget=21)
        (medium,) = together.inputs[f"image {number}"]
        for row, place in enumerate(medium.rows):
            count = int(kept.count[place])
            assert own.index[row, : int(own.count[row])].tolist() == (
                kept.index[place, :count].tolist()
            )


def test_the_library_call_prunes_what_the_processor_gives(adapter, plain):
    """Two prompts, one of a single image and one of two."""
    nested = [shown()[3:4], shown()[1:3]]
    own = adapter.processor.image_processor(nested, return_tensors="pt")
    given = {name: torch.as_tensor(own[name]) for name in own}
    counts = [[len(packed(plain, given)[0])], [SIDE**2 + 1] * 2]
    prompts = [whole_prompt(adapter, count)[0] for count in counts]
    width = max(map(len, prompts))
    pad = plain.generation_config.pad_token_id
    ids = torch.stack([torch.cat([row.new_full((width - len(row),), pad), row]) for row in prompts])
    mask = torch.stack(
        [torch.cat([row.new_zeros(width - len(row)), torch.ones_like(row)]) for row in prompts]
    )
    whole = {"input_ids": ids, "attention_mask": mask, **given}
    short = prunesid.prune(plain, adapter.processor, whole, method="grid", budget=8)
    image = adapter.placeholders[IMAGE]
    assert (short["input_ids"] == image).sum(1).tolist() == [8, 16]
    output = plain.generate(**short, do_sample=False, max_new_tokens=5)
    records = adapter.encode(given)
    kept = records.compress("grid", budget=8)
    media = [medium for (medium,) in records.inputs.values()]
    for row, own in enumerate((media[:1], media[1:])):
        question = Question("0", "0", QUESTION, {"max_new_tokens": 5})
        answer = engine.answer_plainly(adapter, kept, own, question)
        assert adapter.decode(output[row, short["input_ids"].shape[1] :]) == answer


def test_newlines_after_the_rows_of_the_map_that_hold_a_token(folder, adapter, inputs):
    lines = families.load(folder, newline="rows")
    records = lines.encode(inputs)
    kept = records.compress("random", budget=24, seed=3)
    newline = adapter.model.model.image_newline
    for name, grid in zip(records.names, MAPS, strict=True):
        (plain_order,) = entering(adapter, kept, records, name)
        (found,) = entering(lines, kept, records, name)
        if grid is None:
            assert torch.equal(found, plain_order)
            continue
        (medium,) = records.inputs[name]
        base, high = kept_crops(kept, medium)
        expected = [base.tokens]
        for row in range(grid[0]):
            own = sorted(i for i in high.index.tolist() if i // grid[1] == row)
            expected += [high.tokens[high.index == i] for i in own]
            expected += [newline[None]] if own else []
        assert torch.equal(found, torch.cat(expected))
        assert len(found) > len(plain_order)


@pytest.fixture(scope="module")
def clips(adapter):
    return adapter.preprocess([clip(seed) for seed in range(3)])


@torch.no_grad()
def pooled(plain, clips):
    """Tokens (V, N, E) of clips in the unmodified model, a newline last."""
    return plain.get_video_features(clips["pixel_values_videos"]).pooler_output


def test_frames_are_prepared_as_whole_images_with_the_video_settings(adapter, folder, tmp_path):
    shown_clip = clip(1)
    frames = [Image.fromarray(frame) for frame in shown_clip.frames]
    found = adapter.preprocess([shown_clip])["pixel_values_videos"]
    assert found.shape == (1, 8, 3, 56, 56)
    assert torch.equal(found[0], adapter.preprocess(frames)["pixel_values"][:, 0])
    shutil.copytree(folder, tmp_path / "model")
    settings = {"image_mean": [0.0, 0.0, 0.0], "image_std": [1.0, 1.0, 1.0]}
    (tmp_path / "model" / "video_preprocessor_config.json").write_text(json.dumps(settings))
    plainly = families.load(tmp_path / "model").preprocess([shown_clip])["pixel_values_videos"]
    assert plainly.min() >= 0 and plainly.max() <= 1 and found.min() < 0


@pytest.mark.parametrize("side", [4, 27])
def test_frames_are_pooled_as_the_model_does(side):
    tokens = torch.randn(3, side**2, 5, generator=torch.Generator().manual_seed(0))
    vision = SimpleNamespace(image_size=side * 14, patch_size=14)
    model = SimpleNamespace(config=SimpleNamespace(vision_config=vision))
    expected = LlavaOnevisionModel.apply_pooling(model, tokens)
    assert torch.equal(pool_frames(tokens), expected)
    assert expected.shape == (3, (14 if side == 27 else 2) ** 2, 5)


def test_every_field_of_a_clip_is_pooled(adapter, plain, clips):
    """On 4 x 4 patches a pooled token is the mean of 2 x 2."""
    needs = Needs(cls_attention=True, keys=True, projected=True, layers=frozenset({1}))
    records = adapter.encode(clips, needs, ["a", "b", "c"])
    (group,) = records.groups
    assert group.grid == (2, 2) and records.sizes == [4] * 24
    assert group.image_ids[:2] == ("a/0", "a/1")
    assert [m.rows[0] for (m,) in records.inputs.values()] == [0, 8, 16]
    eager = copy.deepcopy(plain.model.vision_tower)
    eager.set_attn_implementation("eager")
    with torch.no_grad():
        states = eager(
            clips["pixel_values_videos"].flatten(0, 1),
            output_hidden_states=True,
            output_attentions=True,
        )
        projected = plain.model.multi_modal_projector(states.hidden_states[-1])
        last = plain.model.vision_tower.encoder.layers[-1]
        keys = last.self_attn.k_proj(last.layer_norm1(states.hidden_states[-2]))
    received = states.attentions[-1].mean(dim=2).transpose(1, 2)
    for found, tokens in (
        (group.features, projected),
        (group.projected, projected),
        (group.hidden[1], states.hidden_states[2]),
        (group.cls_attention.transpose(1, 2), received),
        (group.keys.transpose(1, 2).flatten(2), keys),
    ):
        means = tokens.view(24, 2, 2, 2, 2, -1).mean(dim=(2, 4)).flatten(1, 2)
        torch.testing.assert_close(found, means, rtol=1e-5, atol=1e-5)


def test_a_clip_kept_whole_gives_the_unmodified_model_s_logits_and_answer(adapter, plain, clips):
    records = adapter.encode(clips)
    kept = records.all_tokens()
    before, after = adapter.prompt(QUESTION, [VIDEO]).texts
    for number, expected in enumerate(pooled(plain, clips)):
        (visual,) = entering(adapter, kept, records, str(number))
        torch.testing.assert_close(visual, expected, rtol=1e-5, atol=1e-5)
        assert len(visual) == 8 * 4 + 1
        ids = torch.tensor([[*before, *[adapter.placeholders[VIDEO]] * len(visual), *after]])
        pixels = clips["pixel_values_videos"][number : number + 1]
        given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        with torch.no_grad():
            whole = plain(**given, pixel_values_videos=pixels)
            found = plain(**given, mm_encoder_outputs=adapter.encoder_outputs({VIDEO: [visual]}))
            answer = plain.generate(
                **given, pixel_values_videos=pixels, do_sample=False, max_new_tokens=6
            )
        torch.testing.assert_close(found.logits, whole.logits, rtol=1e-5, atol=1e-4)
        question = Question("0", str(number), QUESTION, {"max_new_tokens": 6})
        (ours,) = engine.answer(adapter, kept, records.inputs, [question])
        assert ours.answer == adapter.decode(answer[0, ids.shape[1] :])


def test_a_pruned_clip_answers_as_a_reference_from_inputs_embeds(adapter, plain, clips):
    records = adapter.encode(clips)
    kept = records.compress("random", budget=18, seed=3)
    # An even share of every frame; the first two take what is left.
    assert kept.count.tolist() == [3, 3, 2, 2, 2, 2, 2, 2] * 3
    texts = adapter.prompt(QUESTION, [VIDEO]).texts
    for number, tokens in enumerate(pooled(plain, clips)):
        frames = tokens[:-1].view(8, 4, -1)
        (medium,) = records.inputs[str(number)]
        visual = torch.cat(
            [
                frame[kept.index[row, : int(kept.count[row])]]
                for frame, row in zip(frames, medium.rows, strict=True)
            ]
        )
        question = Question("0", str(number), QUESTION, {"max_new_tokens": 6})
        ours = engine.answer_plainly(adapter, kept, [medium], question)
        assert ours == adapter.decode(slow_greedy(plain, texts, [visual], adapter.end_ids, 6))


def test_an_image_beside_a_clip_is_alone_and_two_are_squares(adapter, plain):
    media = [clip(0), shown()[3], *shown()[1:3], clip(1)]
    inputs = adapter.preprocess(media)
    assert inputs["media_types"].tolist() == [2, 1, 1, 1, 2]
    records = adapter.encode(inputs, names=["one", "one", "two", "two", "two"])
    one, two = records.inputs["one"], records.inputs["two"]
    assert [medium.kind for medium in (*one, *two)] == [VIDEO, IMAGE, IMAGE, IMAGE, VIDEO]
    assert [medium.layout["view"] for medium in (*one, *two)] == [
        WHOLE,
        WHOLE,
        PADDED,
        PADDED,
        WHOLE,
    ]
    assert one[1].layout["map"] == [8, 8]
    own = adapter.preprocess(media[1:2])
    visual = [pooled(plain, adapter.preprocess(media[:1]))[0], packed(plain, own)[0]]
    texts = adapter.prompt(QUESTION, [VIDEO, IMAGE]).texts
    question = Question("0", "one", QUESTION, {"max_new_tokens": 6})
    (answer,) = engine.answer(adapter, records.all_tokens(), records.inputs, [question])
    assert answer.answer == adapter.decode(slow_greedy(plain, texts, visual, adapter.end_ids, 6))
    assert answer.tokens == sum(map(len, visual))


def test_errors_name_the_reason(adapter, plain, inputs):
    with pytest.raises(ValueError, match="neither images nor clips"):
        adapter.encode({})
    with pytest.raises(ValueError, match=r"one number of frames, not \[4, 8\]"):
        adapter.preprocess([clip(0), clip(1, frames=4)])
    with pytest.raises(ValueError, match=r"layers \[7\] are not among 0..3"):
        adapter.encode(inputs, Needs(layers=frozenset({7})))
    with pytest.raises(ValueError, match="needs cls, which this record lacks"):
        adapter.encode(inputs, Needs(cls_attention=True)).compress(
            "prunesid", budget=20, preset="release", cls_token=True
        )
    for name, value, message in (
        ("vision_aspect_ratio", "anyres", "must be anyres_max_N, not 'anyres'"),
        ("vision_feature_select_strategy", "default", "must be 'full', not 'default'"),
        ("vision_feature_layer", 0, "must name one block's output, not 0"),
    ):
        other = copy.copy(plain)
        other.config = copy.deepcopy(plain.config)
        setattr(other.config, name, value)
        with pytest.raises(ValueError, match=message):
            families.adapt(other, adapter.processor)
