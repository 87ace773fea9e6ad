"""Differences of Qwen3-VL; the rest of its adapter is in test_models_qwen2_vl."""

from __future__ import annotations

import dataclasses
import json
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from builders.qwen_models import QUESTION, asked, clip, kinds_of, picture, save_tiny_qwen, shown
from transformers import AutoModelForImageTextToText
from transformers.models.qwen3_vl.processing_qwen3_vl import Qwen3VLProcessor
from transformers.models.qwen3_vl.video_processing_qwen3_vl import smart_resize

from prunesid import families, prune
from prunesid.core.costs import Sizes
from prunesid.core.questions import Question
from prunesid.core.record import Kept, VisionRecord
from prunesid.families.adapter import around, positions_of
from prunesid.families.inputs.qwen3 import preprocess, times
from prunesid.generate import engine
from prunesid.images.records import ImageRecords
from prunesid.methods.features import Needs, list_feature_methods, register
from prunesid.methods.features.pool import pooled_grid
from prunesid.methods.registry import METHODS
from prunesid.study.files.features import read_features, write_features
from prunesid.study.files.kept import load_kept, save_kept

WIDTH, FURTHER = 48, 96


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("qwen3_vl")
    save_tiny_qwen(folder, "qwen3_vl")
    return folder


@pytest.fixture(scope="module")
def adapter(folder):
    return families.load(folder)


@pytest.fixture(scope="module")
def plain(folder):
    return AutoModelForImageTextToText.from_pretrained(folder).eval()


def everything(adapter):
    """The records of all that is shown, input by input."""
    names = [name for name, media in shown().items() for _ in media]
    media = [medium for own in shown().values() for medium in own]
    return adapter.encode(adapter.preprocess(media), names=names)


@torch.no_grad()
def removed_by_hand(plain, inputs, dropped, steps):
    """Logits of the prompt without the visual tokens `dropped` (their numbers), and greedy ids.

    The stock model's own towers, positions and decoder; the whole sequence runs for every token.
    """
    model, ids = plain.model, inputs["input_ids"][0]
    grids = {name: value for name, value in inputs.items() if name.endswith("thw")}
    types = inputs["mm_token_type_ids"]
    positions, _ = model.get_rope_index(inputs["input_ids"], types, **grids)
    embeddings = model.get_input_embeddings()(ids)
    deep = torch.zeros(2, len(ids), WIDTH)
    for kind, pixels, name in ((1, "pixel_values", "image"), (2, "pixel_values_videos", "video")):
        if pixels in inputs:
            found = model.get_image_features(inputs[pixels], inputs[f"{name}_grid_thw"])
            here = types[0] == kind
            embeddings[here] = torch.cat(list(found.pooler_output))
            for layer, features in enumerate(found.deepstack_features):
                deep[layer, here] = torch.cat(list(features))
    visual = types[0].nonzero()[:, 0]
    stays = torch.ones(len(ids), dtype=torch.bool)
    stays[visual[dropped]] = False
    is_visual = types[0].bool()[stays]
    sequence, places, deep = embeddings[stays], positions[:, 0, stays], deep[:, stays]
    following, found, first = int(positions[0, 0, -1]) + 1, [], None
    while len(found) < steps and not (found and found[-1] in plain.generation_config.eos_token_id):
        hidden = model.language_model(
            inputs_embeds=sequence[None],
            position_ids=places[:, None],
            visual_pos_masks=is_visual[None],
            deepstack_visual_embeds=[each[is_visual[: each.shape[0]]] for each in deep],
        ).last_hidden_state
        logits = plain.lm_head(hidden[0])
        first = logits if first is None else first
        found.append(int(logits[-1].argmax()))
        new = model.get_input_embeddings()(torch.tensor([found[-1]]))
        sequence = torch.cat([sequence, new])
        places = torch.cat([places, torch.full((3, 1), following)], dim=1)
        is_visual = torch.cat([is_visual, torch.tensor([False])])
        deep = torch.cat([deep, torch.zeros(2, 1, WIDTH)], dim=1)
        following += 1
    return first, found


def some(records, seed):
    """Half of the tokens of every crop in raster order, and the others' numbers by input."""
    generator = torch.Generator().manual_seed(seed)
    wanted = torch.zeros_like(records.all_tokens().index, dtype=torch.bool)
    dropped = {}
    for name, media in records.inputs.items():
        before, lost = 0, []
        for row in (row for medium in media for row in medium.rows):
            size = records.sizes[row]
            order = torch.randperm(size, generator=generator)
            wanted[row, order[: max(1, size // 2)]] = True
            lost += (before + order[max(1, size // 2) :].sort().values).tolist()
            before += size
        dropped[name] = torch.tensor(lost, dtype=torch.int64)
    return records.all_tokens().only(wanted), dropped


@pytest.mark.parametrize("seed", range(2))
def test_kept_tokens_are_the_stock_model_with_the_others_removed(adapter, plain, seed):
    """Logits, answers one by one by the model's own `generate`, and answers of a ragged batch."""
    records = everything(adapter)
    kept, dropped = some(records, seed)
    questions = [Question(name, name, QUESTION, {"max_new_tokens": 5}) for name in records.inputs]
    batched = engine.answer(adapter, kept, records.inputs, questions, batch_size=4)
    answers = set()
    for (name, media), answer in zip(shown().items(), batched, strict=True):
        expected, ids = removed_by_hand(plain, asked(adapter, media), dropped[name], 5)
        entering = engine.enter(adapter, kept, records.inputs[name])
        prompt = adapter.prompt(QUESTION, kinds_of(media))
        found = logits(adapter, entering, prompt)
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
        assert adapter.generate(entering, prompt, 5) == ids
        text = [token for token in ids if token not in adapter.end_ids]
        assert answer.answer == adapter.decode(text)
        assert answer.tokens + answer.text == len(expected)
        answers.add(answer.answer)
    assert len(answers) > 4


def logits(adapter, entering, prompt):
    """Logits (S, vocabulary) of a whole prompt."""
    texts = around(prompt.texts, entering)
    parts = [adapter.embed(torch.tensor(texts[0], dtype=torch.int64))]
    for part, text in zip(entering, texts[1:], strict=True):
        parts += [part.embeddings, adapter.embed(torch.tensor(text, dtype=torch.int64))]
    positions, _ = positions_of(list(map(len, texts)), entering)
    hidden = adapter.run(torch.cat(parts)[None], adapter.new_cache(), positions=positions[:, None])
    return adapter.logits(hidden[0])


def test_what_later_layers_add_reaches_the_answer(adapter):
    """The equalities above are not of zeros."""
    records = adapter.encode(adapter.preprocess([picture(84, 140)]), names=["a"])
    kept, prompt = records.all_tokens(), adapter.prompt(QUESTION, ["image"])
    assert kept.tokens.shape[2] == WIDTH + FURTHER
    whole = logits(adapter, engine.enter(adapter, kept, records.inputs["a"]), prompt)
    for layer in (1, 2):
        kept.tokens[:, :, layer * WIDTH : (layer + 1) * WIDTH] = 0
        bare = logits(adapter, engine.enter(adapter, kept, records.inputs["a"]), prompt)
        assert float((bare - whole)[-1].abs().max()) > 0.1
        whole = bare


def test_nothing_is_chosen_by_what_tokens_carry(adapter):
    records = adapter.encode(
        adapter.preprocess([picture(84, 140)]), Needs(cls_attention=True, projected=True), ["a"]
    )
    (record,) = records.groups
    other = dataclasses.replace(record, carried=torch.randn_like(record.carried))
    turned = dataclasses.replace(records, groups=(other,))
    for method in ("prunesid", "divprune", "cls_topk", "random", "grid"):
        one, two = (each.compress(method, budget=6) for each in (records, turned))
        assert torch.equal(one.index, two.index)
        assert torch.equal(one.tokens[:, :, :WIDTH], two.tokens[:, :, :WIDTH])
        own = one.index[0]
        assert torch.equal(one.tokens[0], record.tokens[0, own])
        assert torch.equal(two.tokens[0, :, WIDTH:], other.carried[0, own])


def test_averages_carry_the_averages(adapter):
    records = adapter.encode(adapter.preprocess([picture(84, 140), clip(4)]), names=["a", "b"])
    kept = records.compress("pool", budget=6)
    (record,) = [group for group in records.groups if group.grid == (3, 5)]
    rows, columns = pooled_grid(3, 5, 6)
    maps = record.tokens.double().transpose(1, 2).unflatten(2, (3, 5))
    means = torch.nn.functional.adaptive_avg_pool2d(maps, (rows, columns)).flatten(2)
    torch.testing.assert_close(
        kept.tokens[0, : rows * columns].double(), means[0].T, atol=1e-6, rtol=1e-6
    )
    assert kept.tokens.shape[2] == WIDTH + FURTHER


def test_a_method_that_makes_tokens_of_features_alone_is_refused(adapter, monkeypatch):
    monkeypatch.setattr(METHODS, "_entries", dict(METHODS._entries))
    assert "first_only" not in list_feature_methods()

    @register("first_only")
    def first_only(record, budget, draws):
        images = len(record)
        none = torch.full((images, 1), -1)
        return Kept(record.features.mean(1, keepdim=True), none, torch.ones_like(none[:, 0]))

    records = adapter.encode(adapter.preprocess([picture(84, 140)]))
    with pytest.raises(
        ValueError, match="first_only .*: its tokens are .* are made of VisionRecord.tokens"
    ):
        records.compress("first_only", budget=1)


def test_a_cls_token_carries_nothing():
    features = torch.zeros(1, 4, 2)
    with pytest.raises(ValueError, match="a CLS token has no channels to stand beside"):
        VisionRecord(features, cls=torch.zeros(1, 2), carried=features)


def test_the_store_keeps_what_tokens_carry(adapter, tmp_path):
    """Tokens kept by their index are found again; other channels are other features."""
    records = adapter.encode(adapter.preprocess([picture(84, 140), clip(4)]), names=["a", "b"])
    paths = [tmp_path / name for name in ("one", "two")]
    other = [dataclasses.replace(g, carried=g.carried + 1) for g in records.groups]
    for path, own in zip(paths, (records.groups, other), strict=True):
        whole: ImageRecords = dataclasses.replace(records, groups=tuple(own))
        write_features([whole], Sizes(adapter.sizes.decoder, None, 0), "", {}, path)
    for fields in (None, ()):
        found, head = read_features(paths[0], fields=fields)
        assert torch.equal(found.all_tokens().tokens, records.all_tokens().tokens)
    assert head.identity() != read_features(paths[1])[1].identity()
    for method in ("prunesid", "pool"):
        kept = records.compress(method, budget=6)
        save_kept(kept, tmp_path / method)
        assert torch.equal(load_kept(tmp_path / method, found).tokens, kept.tokens)


def test_clips_are_said_as_transformers_processor_says_them(adapter):
    """Placeholders in the place of the mark and its surroundings, as the authors have them."""
    tokenizer = adapter.processor.tokenizer
    for frames in (1, 5, 12):
        media = [clip(frames)]
        inputs = adapter.preprocess(media)
        reference = SimpleNamespace(
            video_processor=SimpleNamespace(merge_size=2, temporal_patch_size=2),
            vision_start_token="<|vision_start|>",
            vision_end_token="<|vision_end|>",
            video_token="<|video_pad|>",
            _calculate_timestamps=partial(Qwen3VLProcessor._calculate_timestamps, None),
        )
        metadata = SimpleNamespace(fps=media[0].fps, frames_indices=list(media[0].indices))
        given = {"video_grid_thw": inputs["video_grid_thw"], "video_metadata": [metadata]}
        placeholder = Qwen3VLProcessor.replace_video_token(reference, given, 0)
        text = adapter.text(QUESTION, ["video"])
        text = text.replace("<|vision_start|><|video_pad|><|vision_end|>", placeholder)
        records = adapter.encode(inputs, names=["a"])
        entering = engine.enter(adapter, records.all_tokens(), records.inputs["a"])
        texts = around(adapter.prompt(QUESTION, ["video"]).texts, entering)
        ids = list(texts[0])
        for part, own in zip(entering, texts[1:], strict=True):
            ids += [*[adapter.placeholders["video"]] * len(part), *own]
        assert ids == tokenizer(text)["input_ids"]
        assert len(entering) == -(-frames // 2)
    assert times(clip(5), 2) == [0.25, 1.25, 2.0]
    (medium,) = records.inputs["a"]
    assert json.loads(json.dumps(dict(medium.layout)))["seconds"] == times(clip(12), 2)


def test_a_clip_placed_by_the_question_gets_the_same_marks(adapter):
    own = adapter.prompt(f"{QUESTION} <|video_pad|> again", ["video"])
    start, end = adapter.start, adapter.end
    assert start not in own.texts[0][-1:] and own.texts[1][0] == end


def test_a_clip_s_size_is_that_of_all_its_frames(adapter):
    def grid(frames, height, width, **settings):
        processor = dataclasses.replace(adapter.processor, video_processor=settings)
        return preprocess(processor, [clip(frames, height, width)])["video_grid_thw"][0].tolist()

    size = {"shortest_edge": 56 * 56, "longest_edge": 50 * 28 * 28}
    for frames, height, width in ((3, 140, 168), (8, 280, 280), (2, 20, 90), (5, 84, 84)):
        tall, wide = smart_resize(
            frames,
            height,
            width,
            temporal_factor=2,
            factor=28,
            min_pixels=56 * 56,
            max_pixels=50 * 28 * 28,
        )
        assert grid(frames, height, width, size=size) == [-(-frames // 2), tall // 14, wide // 14]
    # More frames, smaller ones.
    assert grid(2, 280, 280, size=size)[1] > grid(8, 280, 280, size=size)[1]
    given = {"min_pixels": 56 * 56, "max_pixels": 50 * 28 * 28}
    assert grid(8, 280, 280, **given) == grid(8, 280, 280, size=size)
    # 9 tokens of 28 x 28 pixels a frame at the most.
    capped = {"size": size | {"longest_edge": 9000 * 28 * 28}, "max_video_tokens": 9}
    assert grid(8, 280, 280, **capped, cap_pixels_per_frame=True) == [4, 6, 6]
    assert grid(8, 280, 280, **capped) == [4, 20, 20]
    # The default least size is larger than the clip.
    assert grid(2, 56, 56)[1] > 4


def test_both_forms_of_a_prompt_are_pruned(adapter, plain):
    """Marks that transformers' processor leaves around a whole clip are ordinary text."""
    inputs = asked(adapter, [clip(5)])
    start, end = adapter.start, adapter.end
    ids = inputs["input_ids"][0].tolist()
    first, last = ids.index(start), len(ids) - 1 - ids[::-1].index(end)
    # `<0.2 seconds>` are two tokens here.
    longer = [*ids[: first - 2], start, *ids[first - 2 : last + 1], end, *ids[last + 1 :]]
    for given in (ids, longer):
        own = torch.tensor([given])
        whole = {**inputs, "input_ids": own, "attention_mask": torch.ones_like(own)}
        whole["mm_token_type_ids"] = 2 * (own == adapter.placeholders["video"])
        short = prune(plain, adapter.processor, whole, "grid", 6)
        count = int((own == adapter.placeholders["video"]).sum())
        assert short["input_ids"].shape[1] == len(given) - count + 6
        visual = short["input_ids"] == adapter.placeholders["video"]
        left = [t for t in short["input_ids"][0].tolist() if t != adapter.placeholders["video"]]
        assert left == [t for t in given if t != adapter.placeholders["video"]]
        assert int(visual.sum()) == 6
        # 3 frames with 2 tokens each that keep their place.
        full, _ = plain.model.get_rope_index(
            own, whole["mm_token_type_ids"], video_grid_thw=inputs["video_grid_thw"]
        )
        places = full[:, 0].T.tolist()
        assert all(place in places for place in short["position_ids"][:, 0].T.tolist())
        assert short["position_ids"][0, 0, -1] == full[0, 0, -1]
