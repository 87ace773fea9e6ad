"""What Pocket-Mini-Gemini's training shows its parts is what the model sees when it is asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from builders.interrupted import whole_and_resumed
from transformers import LlavaForConditionalGeneration
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from prunesid.families.inputs.conversations import CONVERSATIONS
from prunesid.pocket import WEIGHTS
from prunesid.pocket.drawing import draw
from prunesid.pocket.gemini import training
from prunesid.pocket.gemini.model import build_model, build_processor
from prunesid.pocket.gemini.training import Learner, answered, learn_answers, learn_patches
from prunesid.pocket.gemini.views import batch_of, halved, window
from prunesid.pocket.model import MEAN, STD, save
from prunesid.pocket.next.scenes import SIZES, sample_scene
from prunesid.pocket.questions import ask
from prunesid.pocket.training.grounding import shape_centers
from prunesid.pocket.training.labels import KINDS
from prunesid.pocket.training.schedule import Phase


@pytest.fixture(scope="module")
def model():
    return build_model()


@pytest.fixture(scope="module")
def learner(model):
    return Learner(model)


def scene_of(size: tuple[int, int], kind: str = "scene"):
    return sample_scene(np.random.default_rng(2), kind, size)


@torch.no_grad()
def test_its_first_tower_is_pocket_llavas(model, learner):
    """Other pixel statistics and smaller features; the patches mean the same to the projector."""
    old = LlavaForConditionalGeneration.from_pretrained(WEIGHTS, dtype=torch.float32)
    pixels = batch_of([scene_of((672, 448))], learner.processors[24])["pixel_values"]
    mean, std = (torch.tensor(v)[:, None, None] for v in (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD))
    theirs = old.model.get_image_features((pixels * std + mean - MEAN) / STD).pooler_output[0]
    found = model.model.multi_modal_projector(model.model.patches(pixels))[0]
    assert torch.allclose(found, theirs, atol=0.01 * float(theirs.std()))


@torch.no_grad()
def test_most_of_the_language_model_is_pocket_llavas(model):
    old = LlavaForConditionalGeneration.from_pretrained(WEIGHTS, dtype=torch.float32)
    words = torch.arange(20, 40)[None]
    theirs = old.model.language_model(words).last_hidden_state
    found = model.model.language_model(words).last_hidden_state
    # An eighth of the neurons of its MLPs is missing, those with the smallest weights.
    assert torch.nn.functional.cosine_similarity(found, theirs, dim=-1).min() > 0.9


def test_it_fits_ten_megabytes(model, learner, tmp_path):
    save(model, learner.processors[24].tokenizer, tmp_path)
    assert (tmp_path / "model.safetensors").stat().st_size < 10_000_000


@pytest.mark.parametrize("size", SIZES)
@torch.no_grad()
def test_patches_equal_the_models(model, learner, size):
    scene = scene_of(size)
    batch = batch_of([scene], learner.processors[24])
    inputs = build_processor(model.config).images([draw(scene)[0]])
    theirs = model.model.get_image_features(**inputs).last_hidden_state
    assert torch.allclose(learner.patches(batch), theirs, atol=1e-4)
    plain = model.model.patches(inputs["pixel_values"])
    assert torch.allclose(learner.patches(batch, sharp=False), plain, atol=1e-4)


@torch.no_grad()
def test_packed_answers_equal_the_model_asked_alone(model, learner):
    scene = scene_of((448, 672), "code")
    asked = ask(scene, np.random.default_rng(0), {"existence": 1, "multiple_choice": 1, "code": 1})
    processor = learner.processors[24]
    tokens = learner.projector(learner.patches(batch_of([scene], processor)))
    found = answered(learner, tokens, scene, asked)
    for number, question in enumerate(asked):
        prompt = CONVERSATIONS["vicuna_v1"].text(f"<image>\n{question.prompt}")
        inputs = processor([draw(scene)[0]], f"{prompt} {question.answer} </s>")
        theirs = model(**inputs).logits[0]
        mine = found.logits[0, found.packed.segment[0] == number]
        assert torch.allclose(mine, theirs[-len(mine) :], atol=1e-3)


@pytest.mark.parametrize("size", SIZES)
def test_targets_lie_where_the_things_are(learner, size):
    scene = scene_of(size)
    batch = batch_of([scene], learner.processors[24])
    left, top = ((672 - side) // 2 for side in size)
    found = 0
    for shape in scene.shapes:
        share = torch.tensor([shape.x / size[0], shape.y / size[1]], dtype=torch.float32)
        own = (batch["center"][0] - share).abs().amax(1) < 1e-6
        assert (batch["kind"][0, own] == KINDS.index(shape.shape)).all()
        rows, columns = own.view(24, 24).nonzero(as_tuple=True)
        assert ((28 * rows + 14 - shape.y - top).abs() < 28).all()
        assert ((28 * columns + 14 - shape.x - left).abs() < 28).all()
        assert batch["content"][0, own].all()
        found += bool(own.any())
    # A thing may have too little of each of its patches for any to be called its own.
    assert found >= len(scene.shapes) - 1 > 1
    inside = torch.zeros(24, 24, dtype=torch.bool)
    inside[top // 28 : 24 - top // 28, left // 28 : 24 - left // 28] = True
    assert torch.equal(batch["weight"].view(24, 24) > 0, inside)
    pointed = shape_centers([halved(scene)])[0].argmax(1)
    assert batch["content"][0, pointed].all()


def test_a_window_is_a_part_of_the_whole(learner):
    scene = window(np.random.default_rng(4))
    batch = batch_of([scene], learner.processors[12])
    (left, top), patch = scene.origin, 28
    first = 1 + top // patch * 24 + left // patch
    assert batch["positions"][0, 1] == first
    assert batch["positions"][0, -1] == first + 11 * 24 + 11
    shape, moved = scene.shapes[0], halved(scene).shapes[0]
    assert halved(scene).share(moved.x, moved.y) == pytest.approx(scene.share(shape.x, shape.y))
    share = torch.tensor(scene.share(shape.x, shape.y), dtype=torch.float32)
    assert ((batch["center"][0] - share).abs().amax(1) < 1e-6).any()


def test_what_is_dropped_is_background(learner, monkeypatch):
    lengths = []

    def seen(own, tokens, scene, questions):
        lengths.append(tokens.shape[1])
        return answered(own, tokens, scene, questions)

    monkeypatch.setattr(training, "answered", seen)
    for backdrop in (0.0, 1.0):
        monkeypatch.setattr(training, "THIN", 0.0)
        learn_answers(learner, 3, Phase(24, 1, 1, 0.0, backdrop=backdrop))
    rng = np.random.default_rng([training.SEED, 1, 3, 0])
    content = batch_of([sample_scene(rng)], learner.processors[24])["content"]
    assert lengths == [int(content.sum()), 576]


def test_training_resumes_where_it_was_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "MEASURED_IMAGES", 2)
    monkeypatch.setattr(training, "MINING", [Phase(12, 2, 2, 1e-3)])
    monkeypatch.setattr(training, "LANGUAGE", [Phase(12, 1, 2, 1e-3)])

    def train(folder: Path):
        return training.train(folder, quick=False)[0].state_dict()

    # Within the first stage, and within the second.
    whole, resumed = whole_and_resumed(monkeypatch, train, tmp_path, (1, 2))
    start = build_model().state_dict()
    for name, value in whole.items():
        assert torch.allclose(value, resumed[name], atol=1e-5), name
        assert ("vision_tower." in name) == torch.equal(value, start[name]), name


def test_a_step_of_the_first_stage_leaves_the_language_model_alone():
    own = Learner(build_model()).requires_grad_(True)
    own.language.requires_grad_(False)
    assert learn_patches(own, 0, Phase(12, 2, 1, 0.0)) > 0
    assert all(p.grad is None for p in own.language.parameters())
    for part in (own.trunk, own.mining, own.projector):
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in part.parameters())
