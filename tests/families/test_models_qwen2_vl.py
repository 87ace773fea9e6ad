"""The Qwen2-VL adapter, and what Qwen2.5-VL's has from it, against transformers' own models."""

from __future__ import annotations

import dataclasses
import importlib
import json
import shutil
import sys
import types

import numpy as np
import pytest
import torch
from builders.qwen_models import (
    QUESTION,
    SIZES,
    TEMPLATE,
    asked,
    clip,
    kinds_of,
    picture,
    save_tiny_qwen,
    shown,
)
from transformers import AutoModelForImageTextToText
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from prunesid import families
from prunesid.core.needs import Needs
from prunesid.core.questions import Question
from prunesid.core.record import Kept
from prunesid.families.adapter import Crop, around, positions_of
from prunesid.families.inputs.processors import load_video_parts
from prunesid.families.inputs.qwen import preprocess
from prunesid.families.qwen2_vl import INPUTS
from prunesid.generate import engine
from prunesid.images.medium import IMAGE, VIDEO

CONTEXTS = (QUESTION, "how many bars are taller than 3 ? A 1 B 2", "what color is the star ?")
NOTHING = Needs()


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
def eager(folder):
    return AutoModelForImageTextToText.from_pretrained(folder, attn_implementation="eager").eval()


def encoded(adapter, name, needs=NOTHING):
    media = shown()[name]
    return adapter.encode(adapter.preprocess(media), needs, [name] * len(media))


def embedded(adapter, entering, prompt):
    """Embeddings (1, S, E) and positions (3, 1, S) of a prompt with its media in their places."""
    around_all = around(prompt.texts, entering)
    texts = [adapter.embed(torch.tensor(text, dtype=torch.int64)) for text in around_all]
    parts = [texts[0]]
    for medium, text in zip(entering, texts[1:], strict=True):
        parts += [medium.embeddings, text]
    positions, following = positions_of(list(map(len, around_all)), entering)
    return torch.cat(parts)[None], positions[:, None], following


def slowly(adapter, entering, prompt, length):
    """Greedy decoding that runs the whole sequence again for every token."""
    sequence, positions, following = embedded(adapter, entering, prompt)
    ids: list[int] = []
    while len(ids) < length and not (ids and ids[-1] in adapter.end_ids):
        hidden = adapter.run(sequence, adapter.new_cache(), positions=positions)
        ids.append(int(adapter.logits(hidden[0, -1]).argmax()))
        sequence = torch.cat([sequence, adapter.embed(torch.tensor([[ids[-1]]]))], dim=1)
        positions = torch.cat([positions, torch.full((3, 1, 1), following)], dim=2)
        following += 1
    return ids


def some(records, seed=0, share=0.4):
    """Some tokens of each crop in an arbitrary order."""
    generator = torch.Generator().manual_seed(seed)
    whole = records.all_tokens()
    rows = []
    for row, count in enumerate(whole.count.tolist()):
        chosen = torch.randperm(count, generator=generator)[: max(1, round(count * share))]
        rows.append((whole.tokens[row, chosen], chosen))
    width = max(len(index) for _, index in rows)
    tokens = torch.full((len(rows), width, whole.tokens.shape[2]), 99.0)
    index = torch.full((len(rows), width), -1)
    for row, (own, place) in enumerate(rows):
        tokens[row, : len(place)], index[row, : len(place)] = own, place
    return Kept(tokens, index, torch.tensor([len(place) for _, place in rows]))


def entering_of(adapter, kept, records):
    (media,) = records.inputs.values()
    return engine.enter(adapter, kept, media)


def test_geometry(adapter):
    assert (adapter.num_blocks, adapter.feature_block, adapter.num_tokens) == (4, 3, None)
    assert len(adapter.end_ids) == 2


@pytest.mark.parametrize("name", list(shown()))
def test_all_tokens_give_the_logits_of_the_unmodified_model(adapter, plain, name):
    media = shown()[name]
    inputs = asked(adapter, media)
    with torch.no_grad():
        expected = plain(**inputs).logits[0]
    records = encoded(adapter, name)
    prompt = adapter.prompt(QUESTION, kinds_of(media))
    entering = entering_of(adapter, records.all_tokens(), records)
    sequence, positions, _ = embedded(adapter, entering, prompt)
    found = adapter.logits(adapter.run(sequence, adapter.new_cache(), positions=positions)[0])
    assert torch.equal(found, expected)
    generated = plain.generate(**inputs, do_sample=False, max_new_tokens=6)
    expected_ids = generated[0, inputs["input_ids"].shape[1] :].tolist()
    assert adapter.generate(entering, prompt, 6) == expected_ids


@pytest.mark.parametrize("name", list(shown()))
def test_kept_tokens_keep_the_positions_of_the_full_prompt(adapter, plain, name):
    media = shown()[name]
    inputs = asked(adapter, media)
    grids = {k: v for k, v in inputs.items() if k.endswith(("thw", "grid_ts"))}
    whole, _ = plain.model.get_rope_index(inputs["input_ids"], inputs["mm_token_type_ids"], **grids)
    records = encoded(adapter, name)
    sizes = records.sizes
    starts = [sum(sizes[:row]) for row in range(len(sizes))]
    visual = inputs["mm_token_type_ids"][0].nonzero()[:, 0]
    kept = some(records)
    (owned,) = records.inputs.values()
    entering = entering_of(adapter, kept, records)
    prompt = adapter.prompt(QUESTION, kinds_of(media))
    texts = around(prompt.texts, entering)
    found, following = positions_of(list(map(len, texts)), entering)
    # Which columns of the full prompt stay: text, and those of the rows of what enters in between.
    rows = [own.rows for own in owned]
    if len(entering) > len(owned):
        rows = [(row,) for own in rows for row in own]
    stays, column = [], 0
    for number, text in enumerate(texts):
        stays += range(column, column + len(text))
        column += len(text)
        for row in rows[number] if number < len(rows) else ():
            stays += [int(visual[starts[row] + int(i)]) for i in kept_index(kept, row)]
            column += sizes[row]
    assert torch.equal(found, whole[:, 0, stays])
    assert following == int(whole[0, 0, -1]) + 1


def kept_index(kept, row):
    return kept.index[row, : int(kept.count[row])]


@pytest.mark.parametrize("name", list(shown()))
def test_pruned_generation_equals_a_cache_free_reference(adapter, name):
    media = shown()[name]
    records = encoded(adapter, name)
    prompt = adapter.prompt(QUESTION, kinds_of(media))
    for seed in range(2):
        entering = entering_of(adapter, some(records, seed, 0.3 + 0.3 * seed), records)
        ids = adapter.generate(entering, prompt, 6)
        assert ids == slowly(adapter, entering, prompt, 6)


def test_ragged_batches_equal_one_question_at_a_time(adapter):
    names = [name for name, media in shown().items() for _ in media]
    media = [medium for own in shown().values() for medium in own]
    records = adapter.encode(adapter.preprocess(media), names=names)
    questions = [
        Question(f"{name}/{number}", name, CONTEXTS[(number + place) % 3], {"max_new_tokens": 4})
        for place, name in enumerate(records.names)
        for number in range(1 + (place + 2) % 3)
    ]
    early = [records.compress("prunesid", budget=12), records.compress("pool", budget=9)]
    for kept in (records.all_tokens(), some(records), *early):
        answers = engine.answer(adapter, kept, records.inputs, questions, batch_size=4)
        alone = engine.answer(adapter, kept, records.inputs, questions, batch_size=1)
        plainly = [
            engine.answer_plainly(adapter, kept, records.inputs[q.image_id], q) for q in questions
        ]
        assert [each.answer for each in answers] == plainly
        assert [each.answer for each in alone] == plainly
        assert len(set(plainly)) > 8
        for question, each in zip(questions, answers, strict=True):
            rows = [r for medium in records.inputs[question.image_id] for r in medium.rows]
            assert each.tokens == int(kept.count[rows].sum())


def test_images_do_not_see_one_another(adapter):
    names = [name for name, media in shown().items() for _ in media]
    media = [medium for own in shown().values() for medium in own]
    needs = Needs(cls_attention=True, keys=True, layers=frozenset({1}))
    together = adapter.encode(adapter.preprocess(media), needs, names)
    whole = together.all_tokens()
    for name, own in together.inputs.items():
        records = encoded(adapter, name, needs)
        alone = records.all_tokens()
        rows = [row for medium in own for row in medium.rows]
        assert [together.sizes[row] for row in rows] == records.sizes
        for row, single in zip(rows, range(len(alone)), strict=True):
            count = int(alone.count[single])
            torch.testing.assert_close(
                whole.tokens[row, :count], alone.tokens[single, :count], atol=1e-5, rtol=1e-5
            )
            mine, theirs = frame(records, single), frame(together, row)
            for field in ("cls_attention", "keys"):
                torch.testing.assert_close(
                    getattr(theirs, field), getattr(mine, field), atol=1e-5, rtol=1e-5
                )
            torch.testing.assert_close(theirs.hidden[1], mine.hidden[1], atol=1e-5, rtol=1e-5)
            assert theirs.image_ids == mine.image_ids
    ids = {frame(together, row).image_ids for row in range(len(whole))}
    assert len(ids) == len(whole)


def frame(records, row):
    """The record of one row of all."""
    for group, rows in zip(records.groups, records.members, strict=True):
        if row in rows:
            return group.rows([rows.index(row)])
    raise AssertionError(row)


@pytest.mark.parametrize("name", ["image (230, 90)", "clip"])
def test_attention_keys_and_layers_equal_eager_attention(adapter, eager, name, monkeypatch):
    """Read in the tower's order, where Qwen2.5-VL has its windows, and put back by hand."""
    kind = kinds_of(shown()[name])[0]
    inputs = adapter.preprocess(shown()[name])
    pixels, grids = (inputs[key] for key in INPUTS[kind])
    frames, rows, columns = grids[0].tolist()
    tokens = rows * columns // 4
    needs = Needs(
        cls_attention=True,
        keys=True,
        projected=True,
        last_cls_attention=True,
        layers=frozenset({0, 3}),
    )
    (record,) = encoded(adapter, name, needs).groups
    tower, seen, maps = eager.model.visual, {}, []
    modeling = sys.modules[type(tower).__module__]
    plainly = modeling.eager_attention_forward

    def recorded(*args, **given):
        found = plainly(*args, **given)
        maps.append(found[1])
        return found

    monkeypatch.setattr(modeling, "eager_attention_forward", recorded)
    hooks = [tower.blocks[3].attn.qkv.register_forward_hook(lambda *a: seen.update(qkv=a[2]))]
    for i in (0, 3):
        hook = tower.blocks[i].register_forward_hook(lambda *a, i=i: seen.update({i: a[2]}))
        hooks.append(hook)
    with torch.no_grad():
        features = tower(pixels, grid_thw=grids).pooler_output
    for hook in hooks:
        hook.remove()
    order = adapter.tower_order(grids)
    back = torch.arange(frames * tokens) if order is None else order.argsort()

    def raster(patches):
        """(P, ...) of the tower's sequence -> (frames, tokens, 4, ...)."""
        return patches.unflatten(0, (-1, 4))[back].unflatten(0, (frames, tokens))

    assert record.grid == (rows // 2, columns // 2) and len(record) == frames
    torch.testing.assert_close(record.features.flatten(0, 1), features, atol=1e-5, rtol=1e-5)
    assert torch.equal(record.projected, record.features)
    for layer in (0, 3):
        expected = raster(seen[layer]).mean(2)
        torch.testing.assert_close(record.hidden[layer], expected, atol=1e-5, rtol=1e-5)
    keys = raster(seen["qkv"].chunk(3, -1)[1]).mean(2).unflatten(-1, (2, 16)).transpose(1, 2)
    torch.testing.assert_close(record.keys, keys, atol=1e-5, rtol=1e-5)
    # The last block attends frame by frame: a map (1, heads, patches, patches) each.
    received = torch.cat([own[0].mean(dim=1).T for own in maps[-frames:]])
    assert len(received) == frames * rows * columns
    expected = raster(received).sum(2).transpose(1, 2)
    torch.testing.assert_close(record.cls_attention, expected, atol=1e-6, rtol=1e-5)
    assert torch.equal(record.last_cls_attention, record.cls_attention.mean(dim=1))
    sums = record.cls_attention.sum(-1)
    torch.testing.assert_close(sums, torch.ones_like(sums))


def test_optional_fields_are_left_out_and_hooks_are_gone(adapter):
    record = encoded(adapter, "image (84, 140)").single
    assert record.cls is None and record.keys is None and record.cls_attention is None
    encoded(adapter, "clip", Needs(keys=True, cls_attention=True, layers=frozenset({1})))
    modules = list(adapter.model.modules())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in modules)
    with pytest.raises(ValueError, match=r"layers \[4\] are not among 0..3"):
        encoded(adapter, "clip", Needs(layers=frozenset({4})))
    with pytest.raises(ValueError, match="prumerge needs last_attention, last_keys"):
        encoded(adapter, "clip").compress("prumerge", budget=6)


def test_budgets_of_a_clip_are_shared_among_its_frames(adapter):
    records = encoded(adapter, "clip")
    kept = records.compress("random", budget=10)
    assert kept.count.tolist() == [4, 3, 3]
    with pytest.raises(ValueError, match="2 tokens cannot be shared among 3 crops"):
        records.compress("random", budget=2)


def test_tokens_without_a_patch_stand_in_their_frame(adapter):
    layout = encoded(adapter, "image (84, 140)").inputs["image (84, 140)"][0].layout
    assert layout["grid_thw"] == [1, 6, 10]
    tokens = torch.zeros(3, 48)
    merged = adapter.enter([Crop(tokens, torch.tensor([7, -1, 0]))], layout)
    assert merged.positions.tolist() == [[0, 0, 0], [1, 1, 0], [2, 2, 0]] and merged.span == 5
    # As many as a smaller grid of 2 x 3 has: the centers of its cells.
    pooled = adapter.enter([Crop(torch.zeros(6, 48), torch.full((6,), -1))], layout)
    assert pooled.positions[1:].tolist() == [[0, 0, 0, 2, 2, 2], [0, 2, 4, 0, 2, 4]]


def test_a_clip_s_pixels_are_the_image_s_where_its_frames_repeat(adapter):
    image = picture(84, 140)
    still = clip(2, 84, 140)
    still.frames[:] = np.asarray(image)
    inputs = adapter.preprocess([image, still])
    assert torch.equal(inputs["pixel_values_videos"], inputs["pixel_values"])
    assert torch.equal(inputs["video_grid_thw"], inputs["image_grid_thw"])
    assert inputs["media_types"].tolist() == [1, 2]
    # In time, a patch has two frames one after the other.
    moving = adapter.preprocess([clip(2, 84, 140, seed=5)])["pixel_values_videos"]
    ends = [adapter.preprocess([picture(84, 140, seed)])["pixel_values"] for seed in (5, 6)]
    split = [patches.unflatten(1, (3, 2, 196)) for patches in (moving, *ends)]
    assert torch.equal(split[0], torch.stack([split[1][:, :, 0], split[2][:, :, 0]], dim=2))


def test_an_odd_frame_is_repeated(adapter):
    odd, even = clip(3), clip(4)
    even.frames[3] = even.frames[2]
    assert torch.equal(
        adapter.preprocess([odd])["pixel_values_videos"],
        adapter.preprocess([even])["pixel_values_videos"],
    )


def test_prompts_have_one_place_for_each_medium(adapter):
    prompt = adapter.prompt(QUESTION, [IMAGE, VIDEO])
    assert len(prompt.texts) == 3
    start, end = (
        adapter.processor.tokenizer.convert_tokens_to_ids(word)
        for word in ("<|vision_start|>", "<|vision_end|>")
    )
    # The parts of a clip that enter after their time bring the mark.
    timed = adapter.model.config.model_type == "qwen3_vl"
    assert [text[-1:] for text in prompt.before] == [(start,), (end,) if timed else (start,)]
    assert [text[0] for text in prompt.texts[1:]] == [end, end]
    assert len(adapter.prompt(QUESTION, []).texts) == 1


@pytest.mark.parametrize("frames", [3, 4])
def test_a_clip_s_patches_are_those_of_the_video_processor(adapter, frames, monkeypatch):
    """Its `patchify`, on frames that the image processor normalized; the rest needs torchvision."""
    if importlib.util.find_spec("torchvision") is None:
        for name in ("", ".transforms", ".transforms.v2", ".transforms.v2.functional"):
            stub = types.ModuleType(f"torchvision{name}")
            stub.functional = None
            monkeypatch.setitem(sys.modules, stub.__name__, stub)
    reference = importlib.import_module("transformers.models.qwen2_vl.video_processing_qwen2_vl")
    shown = clip(frames, 84, 112)
    processor = adapter.processor.image_processor
    normal = [
        processor.normalize(
            processor.rescale(frame.transpose(2, 0, 1), 1 / 255),
            processor.image_mean,
            processor.image_std,
        )
        for frame in shown.frames
    ]
    video = torch.tensor(np.stack(normal), dtype=torch.float32)[None]
    patchify = reference.Qwen2VLVideoProcessor.patchify
    expected, *grid = patchify(None, video, patch_size=14, merge_size=2, temporal_patch_size=2)
    inputs = adapter.preprocess([shown])
    torch.testing.assert_close(inputs["pixel_values_videos"], expected[0])
    assert inputs["video_grid_thw"].tolist() == [grid] == [[2, 6, 8]]


def test_a_clip_s_size_is_the_video_processor_s(adapter):
    """Limits come from files of either layout, and the share of a frame if asked for."""
    shown = clip(8, 280, 280)

    def grid(**settings):
        processor = dataclasses.replace(adapter.processor, video_processor=settings)
        return preprocess(processor, [shown])["video_grid_thw"][0].tolist()

    if adapter.model.config.model_type == "qwen3_vl":
        pytest.skip("it scales clips as a whole: test_models_qwen3_vl")
    assert adapter.preprocess([shown])["video_grid_thw"].tolist() == [[4, 10, 10]]
    assert grid(size={"shortest_edge": 56 * 56, "longest_edge": 84 * 84}) == [4, 6, 6]
    assert grid(min_pixels=56 * 56, max_pixels=56 * 56) == [4, 4, 4]
    # The default least size is larger than the frame.
    assert grid() == [4, 24, 24]
    size = {"shortest_edge": 56 * 56, "longest_edge": 280 * 280}
    capped = {"size": size, "max_video_tokens": 80}
    # 72 tokens of 28 x 28 pixels among 4 temporal patches: 18 each.
    assert grid(**capped, cap_pixels_per_frame=True) == [4, 8, 8]
    assert grid(**capped) == [4, 20, 20]


def test_processors_load_from_either_layout(folder, adapter, tmp_path):
    """One file for all settings, as transformers 5 saves them, or the older separate files."""
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(folder / name, tmp_path / name)
    images = json.loads((folder / "preprocessor_config.json").read_text())
    video = {**images, "size": {"shortest_edge": 56 * 56, "longest_edge": 84 * 84}}
    nested = {"image_processor": images, "video_processor": video}
    (tmp_path / "processor_config.json").write_text(json.dumps(nested))
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": "{{ 'legacy' }}"}))
    found = load_video_parts(tmp_path)
    assert found.chat_template == "{{ 'legacy' }}"
    asked = [{"role": "user", "content": "how many ?"}]
    assert found.apply_chat_template(asked, tokenize=False) == "legacy"
    assert found.video_processor["size"]["longest_edge"] == 84 * 84
    assert preprocess(found, [clip(2, 280, 280)])["video_grid_thw"].tolist() == [[1, 6, 6]]
    assert adapter.processor.chat_template == TEMPLATE


def test_pixels_are_the_image_processor_s(adapter, folder):
    processor = Qwen2VLImageProcessorPil.from_pretrained(folder)
    pictures = [picture(*size) for size in SIZES]
    expected = processor(pictures, return_tensors="pt")
    inputs = adapter.preprocess(pictures)
    assert set(inputs) == {"pixel_values", "image_grid_thw"}
    assert all(torch.equal(inputs[name], expected[name]) for name in inputs)
    with pytest.raises(ValueError, match="aspect ratio must be smaller than 200"):
        adapter.preprocess([picture(4, 900)])


@torch.no_grad()
def test_dropping_cells_before_the_merger_is_dropping_their_tokens_after_it(adapter):
    seen, merger = [], adapter.model.model.visual.merger
    hook = merger.register_forward_hook(lambda _, given, found: seen.append((given[0], found)))
    adapter.encode(adapter.preprocess([picture(*SIZES[0])]))
    hook.remove()
    ((patches, tokens),) = seen
    unit = adapter.merge_size**2
    chosen = torch.arange(len(tokens))[1::2]
    assert len(patches) == unit * len(tokens) and len(chosen) > 1
    kept = patches.unflatten(0, (-1, unit))[chosen].flatten(0, 1)
    torch.testing.assert_close(merger(kept), tokens[chosen], rtol=1e-4, atol=1e-5)
