"""What Pocket-LLaVA-NeXT's training shows its language model is what transformers' model sees."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
from builders.interrupted import whole_and_resumed

from prunesid.families.llava_next import LlavaNext
from prunesid.pocket import WEIGHTS
from prunesid.pocket.drawing import draw
from prunesid.pocket.evaluate import all_tokens, base_crop
from prunesid.pocket.next import training
from prunesid.pocket.next.model import build_model, build_processor
from prunesid.pocket.next.scenes import SIZES, sample_scene
from prunesid.pocket.next.training import Learner, Lesson, answered, lesson, visual_tokens
from prunesid.pocket.next.views import BASE, Gallery, layout, view_of
from prunesid.pocket.questions import ask
from prunesid.pocket.training.grounding import NONE
from prunesid.pocket.training.schedule import Phase


@pytest.fixture(scope="module")
def model():
    return build_model()


@pytest.fixture(scope="module")
def tower(model):
    found = copy.deepcopy(model.model.vision_tower)
    found.encoder.layers = found.encoder.layers[:-1]
    return found


@pytest.fixture(scope="module")
def processor():
    return build_processor()


def scene_of(size: tuple[int, int]):
    return sample_scene(np.random.default_rng(2), "code", size)


def test_it_starts_as_pocket_llava(model):
    from transformers import LlavaForConditionalGeneration

    old = LlavaForConditionalGeneration.from_pretrained(WEIGHTS, dtype=torch.float32).state_dict()
    new = model.state_dict()
    assert set(new) - set(old) == {"model.image_newline"}
    assert all(torch.equal(new[name], value) for name, value in old.items())
    assert model.lm_head.weight is model.model.language_model.embed_tokens.weight


@pytest.mark.parametrize("size", SIZES)
@torch.no_grad()
def test_visual_tokens_equal_transformers(model, tower, processor, size):
    scene = scene_of(size)
    view = view_of(scene, tower, processor.image_processor)
    own = visual_tokens(Learner(model), view.features, layout(size).source)
    inputs = processor.image_processor([draw(scene)[0]], return_tensors="pt")
    (theirs,) = model.model.get_image_features(**inputs, return_dict=True).pooler_output
    assert own.shape == theirs.shape
    assert torch.allclose(own, theirs, atol=1e-4)


@torch.no_grad()
def test_packed_answers_equal_the_model_asked_alone(model, tower, processor):
    scene = scene_of((448, 672))
    rng = np.random.default_rng(0)
    asked = ask(scene, rng, {"existence": 1, "multiple_choice": 1, "code": 1})
    view = view_of(scene, tower, processor.image_processor)
    kept = torch.arange(len(layout(scene.size).source))
    found = answered(Learner(model), Lesson(scene, view, asked, kept))
    picture = draw(scene)[0]
    for number, question in enumerate(asked):
        text = f"USER: <image> {question.prompt} ASSISTANT: {question.answer} </s>"
        theirs = model(**processor(images=picture, text=text, return_tensors="pt")).logits[0]
        mine = found.logits[0, found.packed.segment[0] == number]
        assert torch.allclose(mine, theirs[-len(mine) :], atol=1e-3)


@pytest.mark.parametrize("closed", [False, True])
@torch.no_grad()
def test_what_is_seen_of_a_prompt_stands_at_its_position(model, tower, processor, closed):
    scene = scene_of((336, 672))
    learner = Learner(model)
    view = view_of(scene, tower, processor.image_processor)
    asked = ask(scene, np.random.default_rng(0), {"existence": 1})
    kept = torch.arange(0, len(layout(scene.size).source), 5)
    found = answered(learner, Lesson(scene, view, asked, kept, closed))
    language = model.model.language_model
    words = language.embed_tokens.weight
    opening = [processor.tokenizer.convert_tokens_to_ids(w) for w in ("<s>", "USER:")]
    inputs = torch.cat([words[opening], found.tokens[0], words[found.packed.ids[0]]])
    length = len(found.packed.ids[0])
    places = torch.cat(
        [torch.arange(2), 2 + kept, 2 + len(layout(scene.size).source) + torch.arange(length)]
    )
    if closed:
        places = torch.arange(len(inputs))
    reference = language(inputs_embeds=inputs[None], position_ids=places[None]).last_hidden_state
    mine = found.packed.segment[0] == 0
    expected = reference[0, -length:] @ words.T
    assert torch.allclose(found.logits[0, mine], expected[mine], atol=1e-3)


def test_what_is_dropped_is_background(tower, processor, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "CLOSED", 0)
    gallery = Gallery(tmp_path, tower, processor.image_processor)
    few = lesson(gallery, Phase(24, 1, 1, 0.0, backdrop=0.1), 3, 0)
    whole = lesson(gallery, Phase(24, 1, 1, 0.0), 3, 0)
    assert few.scene == whole.scene
    where = layout(few.scene.size)
    assert len(whole.kept) == len(where.source)
    assert len(few.kept) < 0.5 * len(whole.kept)
    kept = set(few.kept.tolist())
    assert set((where.source == NONE).nonzero()[:, 0].tolist()) <= kept
    centers = {
        int(where.map_tokens[int(s.y // 14) * where.shown[1] + int(s.x // 14)])
        for s in few.scene.shapes
    }
    assert centers <= kept
    monkeypatch.setattr(training, "CLOSED", 1)
    closed = lesson(gallery, Phase(24, 1, 1, 0.0), 3, 0)
    assert closed.closed
    assert centers <= set(closed.kept.tolist())
    assert len(closed.kept) < 0.5 * len(whole.kept)


def test_a_gallery_keeps_what_the_tower_saw(tower, processor, tmp_path):
    scene = scene_of((672, 336))
    made = Gallery(tmp_path, tower, processor.image_processor).view((1, 2), scene)
    again = Gallery(tmp_path, None, None).view((1, 2), scene)
    assert torch.equal(made.features, again.features)
    assert torch.equal(made.content, again.content)
    seen = view_of(scene, tower, processor.image_processor)
    assert torch.allclose(made.features, seen.features, atol=0.02, rtol=1e-3)


def test_places_are_those_of_the_patches():
    for width, height in SIZES:
        where = layout((width, height))
        rows, columns = where.shown
        assert (rows * 14, columns * 14) == (height, width)
        place = where.place[where.map_tokens].view(rows, columns, 2)
        assert place[0, 0].tolist() == [0, 0]
        assert place[-1, -1].tolist() == [(columns - 1) // 4, (rows - 1) // 4]
        assert where.place[BASE - 1].tolist() == [11, 11]
        assert (where.place[where.source == NONE] == NONE).all()


@torch.no_grad()
def test_the_base_crop_is_the_first_of_each_image(model, processor):
    adapter = LlavaNext(model, processor)
    pictures = [draw(scene_of(size))[0] for size in ((672, 448), (336, 672))]
    records = adapter.encode(adapter.preprocess(pictures), names=["padded", "tall"])
    assert base_crop(records).count.tolist() == [576, 0, 0, 0, 0, 576, 0, 0]
    assert all_tokens(records).count.tolist() == [576] * 8


def test_training_resumes_where_it_was_killed(tmp_path, monkeypatch):
    phases = [Phase(24, 1, 2, 1e-3, backdrop=0.02), Phase(24, 1, 1, 1e-3, backdrop=0.1)]
    monkeypatch.setattr(training, "MEASURED_IMAGES", 1)

    def train(folder):
        built = build_model()
        training.train_language(built, phases, folder)
        return built.state_dict()

    whole, resumed = whole_and_resumed(monkeypatch, train, tmp_path, (2,))
    start = build_model().state_dict()
    for name, value in whole.items():
        assert torch.allclose(value, resumed[name], atol=1e-6), name
        assert ("vision_tower" in name) == torch.equal(value, start[name]), name
    (line,) = (tmp_path / "a" / "next.jsonl").read_text().splitlines()
    assert {"all", "base", "training"} <= set(json.loads(line))
