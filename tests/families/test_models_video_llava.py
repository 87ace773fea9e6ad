"""The Video-LLaVA adapter against transformers' own model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from builders.reference_decoding import slow_greedy
from builders.synthetic import record
from builders.tiny_llava import random_images
from builders.video_llava_models import clip, save_tiny_video_llava
from PIL import Image
from transformers import AutoModelForImageTextToText

import prunesid
from prunesid import families
from prunesid.core.needs import Needs
from prunesid.core.questions import Question
from prunesid.families.adapter import kept_crops
from prunesid.generate import engine
from prunesid.generate import late as late_answers
from prunesid.images.media import Clip
from prunesid.images.medium import ALWAYS, CENTER, CLS, IMAGE, PADDED, VIDEO, WHEN_WHOLE, Medium
from prunesid.images.records import ImageRecords
from prunesid.methods import features, registry
from prunesid.study.files.kept import load_kept, save_kept

QUESTION = "is there a red circle ?"
NAMES = ("a", "b", "c")
MEAN = np.array([0.48145466, 0.4578275, 0.40821073])
STD = np.array([0.26862954, 0.26130258, 0.27577711])
# The others make tokens of their own, as many as a grid has, or one less than asked for (HiRED).
EXACT = sorted(
    set(features.list_feature_methods()) - {"grid", "hired", "pool", "prumerge", "visionzip"}
)


@pytest.fixture(scope="module")
def folder(tiny_llava, tmp_path_factory):
    folder = tmp_path_factory.mktemp("video_llava")
    save_tiny_video_llava(folder, tiny_llava)
    return folder


@pytest.fixture(scope="module")
def adapter(folder):
    return families.load(folder)


@pytest.fixture(scope="module")
def plain(folder):
    return AutoModelForImageTextToText.from_pretrained(folder).eval()


@pytest.fixture(scope="module")
def clips(adapter):
    return adapter.preprocess([clip(seed) for seed in range(3)])


@pytest.fixture(scope="module")
def records(adapter, clips):
    return adapter.encode(clips, Needs(cls_attention=True), NAMES)


def real_frames():
    """8 frames of 256 patches with every field that a method may read."""
    generator = torch.Generator().manual_seed(3)

    def rand(*shape):
        return torch.rand(shape, generator=generator)

    return replace(
        record(images=8, tokens=256, grid=(16, 16)),
        keys=rand(8, 3, 256, 4),
        projected=rand(8, 256, 20),
        relevance=rand(8, 256),
        last_attention=rand(8, 256).softmax(-1),
        last_keys=rand(8, 256, 16),
    )


def prompt_of(adapter, kind, count):
    before, after = adapter.prompt(QUESTION, [kind]).texts
    return torch.tensor([[*before, *[adapter.placeholders[kind]] * count, *after]])


def plain_pixels(frame, side=56):
    """CLIP's way with a frame (H, W, 3): shorter edge to `side`, middle square, normalized."""
    picture = Image.fromarray(np.asarray(frame))
    width, height = picture.size
    scale = side / min(width, height)
    size = int(width * scale), int(height * scale)
    values = np.asarray(picture.resize(size, Image.Resampling.BICUBIC)).astype(np.float64)
    top, left = (size[1] - side) // 2, (size[0] - side) // 2
    values = values[top : top + side, left : left + side] / 255
    return torch.from_numpy(((values - MEAN) / STD).transpose(2, 0, 1)).float()


def bilinear(values, size):
    """(H, W, 3) scaled to `size` between the centers of pixels, without antialiasing."""
    for axis, new in enumerate(size):
        old = values.shape[axis]
        place = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, None)
        low = np.floor(place).astype(int)
        share = np.moveaxis((place - low)[:, None, None], 0, axis)
        below = np.minimum(low + 1, old - 1)
        values = values.take(low, axis) * (1 - share) + values.take(below, axis) * share
    return values


@pytest.mark.parametrize(
    ("shape", "size", "corner"), [((64, 82), (56, 71), (0, 8)), ((101, 60), (94, 56), (19, 0))]
)
def test_frames_are_scaled_as_the_authors_scale_them(adapter, shape, size, corner):
    noise = np.random.default_rng(3).integers(0, 256, (8, *shape, 3)).astype(np.uint8)
    pixels = adapter.preprocess([Clip(noise, tuple(range(8)), 8, 8.0)])["pixel_values_videos"][0]
    top, left = corner
    for frame, found in zip(noise, pixels, strict=True):
        normalized = (frame.astype(np.float64) / 255 - MEAN) / STD
        expected = bilinear(normalized, size)[top : top + 56, left : left + 56]
        torch.testing.assert_close(
            found.double(), torch.from_numpy(expected).permute(2, 0, 1), atol=1e-4, rtol=0
        )


def test_frames_may_be_prepared_as_clip_s_images(folder, clips):
    adapter = families.load(folder, frame_resize="processor")
    pixels = adapter.preprocess([clip(0), clip(1), clip(2)])["pixel_values_videos"]
    assert pixels.shape == clips["pixel_values_videos"].shape == (3, 8, 3, 56, 56)
    for number in range(3):
        expected = torch.stack([plain_pixels(frame) for frame in clip(number).frames])
        torch.testing.assert_close(pixels[number], expected, atol=1e-5, rtol=0)
    frames = [Image.fromarray(np.asarray(frame)) for frame in clip(1).frames]
    cropped = families.load(folder, aspect="crop").preprocess(frames)["pixel_values"]
    assert torch.equal(cropped, pixels[1])


def test_images_show_all_of_the_picture_and_frames_their_middle(adapter, folder):
    picture = Image.fromarray(np.asarray(clip(0).frames[0]))
    for aspect, view in (("pad", PADDED), ("crop", CENTER)):
        own = families.load(folder, aspect=aspect)
        records = own.encode(own.preprocess([picture, clip(0)]), names=("a", "b"))
        views = [records.inputs[name][0].layout["view"] for name in "ab"]
        assert views == [view, CENTER]


def test_a_clip_is_its_frames(records):
    assert records.sizes == [16] * 24
    assert [m.rows for (m,) in records.inputs.values()] == [
        tuple(range(first, first + 8)) for first in (0, 8, 16)
    ]


def test_a_clip_kept_whole_gives_the_unmodified_model_s_logits(adapter, plain, clips, records):
    kept = records.all_tokens()
    assert kept.count.tolist() == [17] * 24
    for row, name in enumerate(NAMES):
        (medium,) = records.inputs[name]
        entering = adapter.enter(kept_crops(kept, medium), medium.layout)
        ids = prompt_of(adapter, VIDEO, len(entering))
        with torch.no_grad():
            expected = plain(
                input_ids=ids, pixel_values_videos=clips["pixel_values_videos"][row : row + 1]
            ).logits
            found = plain(
                input_ids=ids,
                mm_encoder_outputs=adapter.encoder_outputs({VIDEO: [entering.embeddings]}),
            ).logits
        # The tower ran over three clips at once here, over one there.
        torch.testing.assert_close(found, expected, atol=1e-5 * float(expected.abs().max()), rtol=0)


@pytest.mark.parametrize("kind", [VIDEO, IMAGE])
def test_alone_it_is_so_bit_for_bit(adapter, plain, clips, kind):
    if kind == VIDEO:
        inputs, count = {"pixel_values_videos": clips["pixel_values_videos"][1:2]}, 8 * 17
    else:
        inputs, count = adapter.preprocess(random_images(1)), 16
    records = adapter.encode(inputs)
    (medium,) = records.inputs["0"]
    entering = adapter.enter(kept_crops(records.all_tokens(), medium), medium.layout)
    ids = prompt_of(adapter, kind, count)
    given = {kind: [entering.embeddings]}
    with torch.no_grad():
        expected = plain(input_ids=ids, **inputs).logits
        found = plain(input_ids=ids, mm_encoder_outputs=adapter.encoder_outputs(given)).logits
    assert torch.equal(found, expected)


def test_images_have_no_cls_token(adapter, plain):
    inputs = adapter.preprocess(random_images(2))
    records = adapter.encode(inputs)
    assert records.all_tokens().count.tolist() == [16, 16]
    with torch.no_grad():
        expected = plain.model.get_image_features(inputs["pixel_values"]).pooler_output
    for row, (medium,) in enumerate(records.inputs.values()):
        entering = adapter.enter(kept_crops(records.all_tokens(), medium), medium.layout)
        torch.testing.assert_close(entering.embeddings, expected[row], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("budget", "frame"), [(88, 11), (24, 3)])
def test_a_budget_is_shared_among_the_frames(records, budget, frame):
    kept = records.compress("prunesid", budget=budget)
    assert kept.count.tolist() == [frame] * 24
    assert (kept.index >= 0).sum(1).tolist() == [frame] * 24


def test_cls_comes_only_where_all_of_the_clip_is_kept(records):
    """127 of 128 patches leave seven frames whole, but not their clip."""
    kept = records.compress("cls_topk", budget=127)
    assert kept.count.tolist() == [*[16] * 7, 15] * 3
    assert torch.equal(records.compress("cls_topk", budget=128).tokens, records.all_tokens().tokens)
    mixed = records.compress("cls_topk", budget={"a": 127, "b": 500, "c": 24})
    assert mixed.count.tolist() == [*[16] * 7, 15, *[17] * 8, *[3] * 8]


@pytest.mark.parametrize("method", features.list_feature_methods())
@pytest.mark.parametrize(("frame_cls", "patches"), [("drop", 17), ("keep", 16)])
def test_136_tokens_of_8_frames_are_17_a_frame(method, frame_cls, patches):
    """At the real size, 257 tokens a frame."""
    when = {"drop": WHEN_WHOLE, "keep": ALWAYS}[frame_cls]
    frames = real_frames()
    media = (Medium(VIDEO, tuple(range(8)), {CLS: when}),)
    found = ImageRecords((frames,), (tuple(range(8)),), {"clip": media})
    assert found.all_tokens().count.tolist() == [257] * 8
    kept = found.compress(method, budget=136)
    is_cls = (kept.tokens == frames.cls[:, None]).all(2)
    own = registry.requirements(method).cls
    assert is_cls[:, 0].tolist() == [own or frame_cls == "keep"] * 8
    assert not bool(is_cls[:, 1:].any())
    if method in EXACT:
        assert kept.count.tolist() == [17] * 8
        assert (kept.index >= 0).sum(1).tolist() == [patches] * 8
    else:
        assert bool((kept.count <= 17).all())


def test_a_kept_cls_token_enters_before_its_frame(folder, clips):
    keeping = families.load(folder, frame_cls="keep")
    records = keeping.encode(clips, Needs(cls_attention=True), NAMES)
    kept = records.compress("cls_topk", budget=24)
    (medium,) = records.inputs["b"]
    rows = list(medium.rows)
    own = records.groups[0]
    index = kept.index[rows]
    assert (index[:, 0] == -1).all() and (index[:, 1:] >= 0).all() and index.shape == (8, 3)
    expected = torch.stack(
        [torch.cat([own.cls[[row]], own.features[row, index[n, 1:]]]) for n, row in enumerate(rows)]
    )
    entering = keeping.enter(kept_crops(kept, medium), medium.layout)
    torch.testing.assert_close(entering.embeddings, keeping.project(expected).flatten(0, 1))
    asked = Question("b0", "b", QUESTION, {"max_new_tokens": 5})
    (found,) = engine.answer(keeping, kept, records.inputs, [asked], batch_size=1)
    assert found.tokens == 24
    assert found.answer == engine.answer_plainly(keeping, kept, (medium,), asked)
    assert torch.equal(records.compress("cls_topk", budget=128).tokens, records.all_tokens().tokens)
    with pytest.raises(ValueError, match="no place for a patch beside its CLS"):
        records.compress("cls_topk", budget=8)


def test_a_stored_selection_comes_back_with_its_cls(folder, clips, tmp_path):
    keeping = families.load(folder, frame_cls="keep")
    records = keeping.encode(clips, names=NAMES)
    for number, budget in enumerate((24, 128)):
        kept = records.compress("random", budget=budget)
        save_kept(kept, tmp_path / f"{number}.safetensors")
        again = load_kept(tmp_path / f"{number}.safetensors", records)
        assert torch.equal(again.tokens, kept.tokens) and torch.equal(again.index, kept.index)


def test_mustdrops_key_set_is_that_of_all_frames(adapter, clips, monkeypatch):
    """A whole clip enters with its frames' 8 CLS tokens, which have no attention of their own."""
    records = adapter.encode(clips, Needs(last_cls_attention=True), NAMES)
    kept = records.all_tokens()
    attention = records.gather(kept.index, "last_cls_attention")
    (medium,) = records.inputs["b"]
    entering = [attention[row, : int(kept.count[row])] for row in medium.rows]
    expected = torch.cat(entering).topk(20).indices.sort().values.tolist()
    states, run = [], late_answers.prefill_shared
    monkeypatch.setattr(
        late_answers, "prefill_shared", lambda *a, **g: states.append(run(*a, **g)) or states[-1]
    )
    nothing = {"global_threshold": 1e9, "individual_threshold": 1e9}
    total = sum(map(len, entering))
    late_answers.answer_late(
        adapter,
        kept,
        records.inputs,
        [Question("b0", "b", QUESTION, {"max_new_tokens": 2})],
        "mustdrop",
        budget=None,
        params={**nothing, "key_share": 19.5 / total},
        cls_attention=attention,
    )
    assert states[0].kept[-1][0].tolist() == expected


def test_an_unknown_policy_names_the_choices(folder):
    with pytest.raises(ValueError, match=r"frame_cls.*drop.*keep"):
        families.load(folder, frame_cls="pool")


def test_images_go_by_both_names_of_transformers_processor(adapter):
    inputs = adapter.preprocess(random_images(2))
    older = {"pixel_values_images": inputs["pixel_values"]}
    assert torch.equal(
        adapter.encode(older).all_tokens().tokens, adapter.encode(inputs).all_tokens().tokens
    )


def test_frames_enter_in_their_order_without_their_cls(adapter, records):
    kept = records.compress("cls_topk", budget=24)
    (medium,) = records.inputs["b"]
    entering = adapter.enter(kept_crops(kept, medium), medium.layout)
    own = records.groups[0].features[list(medium.rows)]
    index = kept.index[list(medium.rows), :3]
    expected = adapter.project(torch.cat([own[f, index[f]] for f in range(8)]))
    torch.testing.assert_close(entering.embeddings, expected)


@pytest.mark.parametrize("budget", [None, 24, 50])
def test_shared_answers_equal_plain_generate(adapter, records, budget):
    kept = records.all_tokens() if budget is None else records.compress("prunesid", budget=budget)
    questions = [
        Question(f"{name}{n}", name, text, {"max_new_tokens": 5})
        for name in NAMES
        for n, text in enumerate((QUESTION, "what color is the star ?"))
    ]
    found = engine.answer(adapter, kept, records.inputs, questions, batch_size=2)
    assert [each.answer for each in found] == [
        engine.answer_plainly(adapter, kept, records.inputs[q.image_id], q) for q in questions
    ]
    assert {each.tokens for each in found} == {136 if budget is None else budget}


def test_pruned_generation_equals_a_reference_from_inputs_embeds(adapter, records):
    kept = records.compress("prunesid", budget=24)
    (medium,) = records.inputs["c"]
    entering = adapter.enter(kept_crops(kept, medium), medium.layout)
    prompt = adapter.prompt(QUESTION, [VIDEO])
    media = [entering.embeddings]
    expected = slow_greedy(adapter.model, prompt.texts, media, adapter.end_ids, 5)
    assert adapter.generate([entering], prompt, 5) == expected


def test_images_and_clips_together_are_what_they_are_apart(adapter, plain, clips):
    pictures = random_images(2)
    inputs = adapter.preprocess([pictures[0], clip(0), clip(1), pictures[1]])
    records = adapter.encode(inputs, names=("a", "b", "c", "c"))
    kinds = {name: [medium.kind for medium in own] for name, own in records.inputs.items()}
    assert kinds == {"a": [IMAGE], "b": [VIDEO], "c": [VIDEO, IMAGE]}
    images = adapter.encode(adapter.preprocess(pictures)).all_tokens()
    frames = adapter.encode({"pixel_values_videos": clips["pixel_values_videos"][:2]}).all_tokens()
    kept = records.all_tokens()
    for name, number, alone, rows in (
        ("a", 0, images, [0]),
        ("b", 0, frames, list(range(8))),
        ("c", 0, frames, list(range(8, 16))),
        ("c", 1, images, [1]),
    ):
        found = kept_crops(kept, records.inputs[name][number])
        for crop, row in zip(found, rows, strict=True):
            torch.testing.assert_close(crop.tokens, alone.tokens[row, : alone.count[row]])


def test_a_batch_of_the_model_s_own_processor_can_be_pruned(adapter, plain, clips):
    """Its image processor names the pixels otherwise; images and clips stand in one batch."""
    image, video = (adapter.placeholders[kind] for kind in (IMAGE, VIDEO))
    (before, after), (other, last) = (
        adapter.prompt(QUESTION, [kind]).texts for kind in (VIDEO, IMAGE)
    )
    rows = [[*before, *[video] * 136, *after], [*other, *[image] * 16, *last]]
    pads = [136 + len(before) + len(after) - len(row) for row in rows]
    inputs = {
        "input_ids": torch.tensor([[0] * n + row for n, row in zip(pads, rows, strict=True)]),
        "attention_mask": torch.tensor(
            [[0] * n + [1] * len(row) for n, row in zip(pads, rows, strict=True)]
        ),
        "pixel_values_images": adapter.preprocess(random_images(1))["pixel_values"],
        "pixel_values_videos": clips["pixel_values_videos"][:1],
    }
    short = prunesid.prune(plain, adapter.processor, inputs, budget=8)
    assert [(short["input_ids"] == token).sum(1).tolist() for token in (image, video)] == [
        [0, 8],
        [8, 0],
    ]
    width = short["input_ids"].shape[1]
    found = plain.generate(**short, do_sample=False, max_new_tokens=4)[:, width:]
    for row, (kind, name) in enumerate(
        ((VIDEO, "pixel_values_videos"), (IMAGE, "pixel_values_images"))
    ):
        records = adapter.encode({name: inputs[name]})
        kept, (medium,) = records.compress("prunesid", budget=8), records.inputs["0"]
        entering = adapter.enter(kept_crops(kept, medium), medium.layout)
        alone = adapter.generate([entering], adapter.prompt(QUESTION, [kind]), 4)
        assert found[row, : len(alone)].tolist() == alone


def test_clips_of_a_batch_have_one_number_of_frames(adapter):
    with pytest.raises(ValueError, match=r"one number of frames, not \[4, 8\]"):
        adapter.preprocess([clip(0), clip(1, frames=4)])
