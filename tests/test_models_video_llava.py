"""The Video-LLaVA adapter against transformers' own model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import random_images
from transformers import AutoModelForImageTextToText
from video_llava_models import clip, save_tiny_video_llava

from prunesid import models
from prunesid.answering import Question, engine
from prunesid.methods import Needs
from prunesid.models.adapter import kept_crops
from prunesid.records import IMAGE, VIDEO

QUESTION = "is there a red circle ?"
NAMES = ("a", "b", "c")


@pytest.fixture(scope="module")
def folder(tiny_llava, tmp_path_factory):
    folder = tmp_path_factory.mktemp("video_llava")
    save_tiny_video_llava(folder, tiny_llava)
    return folder


@pytest.fixture(scope="module")
def adapter(folder):
    return models.load(folder)


@pytest.fixture(scope="module")
def plain(folder):
    return AutoModelForImageTextToText.from_pretrained(folder).eval()


@pytest.fixture(scope="module")
def clips(adapter):
    return adapter.preprocess([clip(seed) for seed in range(3)])


@pytest.fixture(scope="module")
def records(adapter, clips):
    return adapter.encode(clips, Needs(cls_attention=True), NAMES)


def prompt_of(adapter, kind, count):
    before, after = adapter.prompt(QUESTION, [kind]).texts
    return torch.tensor([[*before, *[adapter.placeholders[kind]] * count, *after]])


def test_frames_are_the_image_processor_s_and_keep_their_order(adapter, clips):
    pixels = clips["pixel_values_videos"]
    assert pixels.shape == (3, 8, 3, 56, 56)
    from PIL import Image

    frames = [Image.fromarray(np.asarray(frame)) for frame in clip(1).frames]
    assert torch.equal(adapter.preprocess(frames)["pixel_values"], pixels[1])


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
        torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-4)


def test_alone_it_is_so_bit_for_bit(adapter, plain, clips):
    alone = {"pixel_values_videos": clips["pixel_values_videos"][:1]}
    records = adapter.encode(alone)
    (medium,) = records.inputs["0"]
    entering = adapter.enter(kept_crops(records.all_tokens(), medium), medium.layout)
    with torch.no_grad():
        expected = plain.model.get_video_features(alone["pixel_values_videos"]).pooler_output
    assert torch.equal(
        adapter.project(records.all_tokens().tokens).flatten(0, 1), expected.flatten(0, 1)
    )
    torch.testing.assert_close(entering.embeddings, expected.flatten(0, 1))


def test_images_have_no_cls_token(adapter, plain):
    inputs = adapter.preprocess(random_images(2))
    records = adapter.encode(inputs)
    assert records.all_tokens().count.tolist() == [16, 16]
    ids = prompt_of(adapter, IMAGE, 16)
    for row, (medium,) in enumerate(records.inputs.values()):
        entering = adapter.enter(kept_crops(records.all_tokens(), medium), medium.layout)
        with torch.no_grad():
            expected = plain(input_ids=ids, pixel_values=inputs["pixel_values"][[row]]).logits
            found = plain(
                input_ids=ids,
                mm_encoder_outputs=adapter.encoder_outputs({IMAGE: [entering.embeddings]}),
            ).logits
        torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize(("budget", "frame"), [(136, 16), (88, 11), (24, 3)])
def test_a_budget_is_shared_among_the_frames(records, budget, frame):
    """With 256 patches a frame, 136 of a clip are 17 each; here a frame has 16 in all."""
    kept = records.compress("prunesid", budget=budget)
    assert set((kept.index >= 0).sum(1).tolist()) == {frame}
    assert kept.count.tolist() == [frame + (frame == 16)] * 24


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
    before, after = (adapter.embed(torch.tensor(ids)) for ids in prompt.texts)
    sequence, ids = torch.cat([before, entering.embeddings, after])[None], []
    while len(ids) < 5 and not (ids and ids[-1] in adapter.end_ids):
        hidden = adapter.run(sequence, adapter.new_cache())
        ids.append(int(adapter.logits(hidden[0, -1]).argmax()))
        sequence = torch.cat([sequence, adapter.embed(torch.tensor([[ids[-1]]]))], dim=1)
    assert adapter.generate([entering], prompt, 5) == ids


def test_what_cannot_be_encoded_at_once_is_refused(adapter):
    with pytest.raises(ValueError, match="images and clips cannot be encoded at once"):
        adapter.preprocess([clip(0), random_images(1)[0]])
    with pytest.raises(ValueError, match=r"one number of frames, not \[4, 8\]"):
        adapter.preprocess([clip(0), clip(1, frames=4)])
