"""The training passes equal transformers' own; after a kill, training resumes without a trace."""

from __future__ import annotations

import itertools

import pytest
import torch
from builders.interrupted import whole_and_resumed

from prunesid.pocket.model import build_model, build_processor
from prunesid.pocket.training import language as language_training
from prunesid.pocket.training import packing, vision
from prunesid.pocket.training.batches import scene_batch
from prunesid.pocket.training.checkpoint import load_checkpoint, save_checkpoint
from prunesid.pocket.training.decoder import packed_forward
from prunesid.pocket.training.language import train_language
from prunesid.pocket.training.packing import batch_of
from prunesid.pocket.training.schedule import WARMUP, Phase, steps_from
from prunesid.pocket.training.tower import tower_forward
from prunesid.pocket.training.vision import train_tower
from prunesid.pocket.vocabulary import words


@pytest.fixture(scope="module")
def model():
    return build_model(vision_blocks=3, language_blocks=2)


def test_the_shipped_architecture_is_llava_1_5s_geometry():
    built = build_model()
    config = built.config
    assert (config.vision_config.image_size, config.vision_config.patch_size) == (336, 14)
    assert config.vision_config.num_hidden_layers == 12
    assert config.text_config.num_hidden_layers >= 6
    assert (config.vision_feature_layer, config.image_seq_length) == (-2, 576)
    assert built.lm_head.weight is built.model.language_model.embed_tokens.weight


@torch.no_grad()
def test_tower_pass_equals_transformers(model):
    tower = model.model.vision_tower
    pixels = torch.randn(2, 3, 336, 336, generator=torch.Generator().manual_seed(0))
    own = tower_forward(tower, pixels, torch.arange(577).expand(2, -1))
    reference = tower(pixels, output_hidden_states=True).hidden_states[1:]
    assert len(own) == len(reference)
    for mine, theirs in zip(own, reference, strict=True):
        assert torch.allclose(mine, theirs, atol=1e-5)


@torch.no_grad()
def test_packed_questions_equal_each_question_alone(model):
    language = model.model.language_model
    batch = batch_of(Phase(12, 2, 1, 0.0), 2, 5)
    packed = batch.packed
    prefix = torch.randn(2, 146, 192, generator=torch.Generator().manual_seed(1))
    own = packed_forward(language, prefix, packed).questions
    assert len(own) == len(language.layers) + 1
    for image, names in enumerate(batch.families):
        for number in range(len(names)):
            chosen = packed.segment[image] == number
            alone = torch.cat([prefix[image], language.embed_tokens(packed.ids[image][chosen])])
            reference = language(inputs_embeds=alone[None], output_hidden_states=True)
            states = (*reference.hidden_states[1:-1], reference.last_hidden_state)
            mine = (*own[:-2], own[-1])
            for mine_here, theirs in zip(mine, states, strict=True):
                assert torch.allclose(mine_here[image][chosen], theirs[0, 146:], atol=1e-4)


def test_packed_answers_are_the_questions(model):
    batch = batch_of(Phase(12, 2, 1, 0.0), 2, 5)
    packed = batch.packed
    vocabulary = words()
    for image, names in enumerate(batch.families):
        assert packed.segment[image].max() == len(names) - 1
        text = [vocabulary[i] for i in packed.ids[image][packed.segment[image] == 0]]
        assert text[-1] == "</s>"
        assert "ASSISTANT:" in text
        answered = [
            vocabulary[i]
            for i in packed.ids[image][packed.answer[image] & (packed.segment[image] == 0)]
        ]
        assert text[text.index("ASSISTANT:") + 1 : -1] == answered


def test_pixels_are_what_the_processor_gives():
    import numpy as np

    from prunesid.pocket.drawing import draw
    from prunesid.pocket.scenes import sample_scene

    scene = sample_scene(np.random.default_rng(3))
    processor = build_processor()
    theirs = processor.image_processor([draw(scene)[0]], return_tensors="pt")["pixel_values"]
    assert torch.allclose(scene_batch([scene])["pixels"], theirs, atol=1e-5)


def test_one_batch_is_a_function_of_seed_and_step():
    phase = Phase(12, 2, 1, 0.0)
    for module in (vision, packing):
        first, again, other = (module.batch_of(phase, 1, step) for step in (4, 4, 5))
        pixels = [(b if isinstance(b, dict) else b.images)["pixels"] for b in (first, again, other)]
        assert torch.equal(pixels[0], pixels[1])
        assert not torch.equal(pixels[0], pixels[2])


def test_training_resumes_where_it_was_killed(tmp_path, monkeypatch):
    phases = [Phase(12, 2, 2, 1e-3), Phase(12, 2, 2, 1e-3)]
    monkeypatch.setattr(language_training, "ALIGNMENT_STEPS", 1)

    def train(folder):
        built = build_model(vision_blocks=4, language_blocks=5)
        train_tower(built.model.vision_tower, phases, folder)
        train_language(built, phases, folder)
        return built.state_dict()

    # Within the tower's training, and within the language model's.
    whole, resumed = whole_and_resumed(monkeypatch, train, tmp_path, (3, 2))
    for name, value in whole.items():
        assert torch.allclose(value, resumed[name], atol=1e-6), name


def test_a_checkpoint_holds_parameters_optimizer_and_step(tmp_path):
    module = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(module.parameters())
    module(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    save_checkpoint(tmp_path / "c.safetensors", module, [optimizer], 7)
    other = torch.nn.Linear(3, 2)
    fresh = torch.optim.AdamW(other.parameters())
    assert load_checkpoint(tmp_path / "c.safetensors", other, [fresh]) == 7
    assert torch.equal(other.weight, module.weight)
    for mine, theirs in zip(fresh.state.values(), optimizer.state.values(), strict=True):
        assert torch.equal(mine["exp_avg_sq"], theirs["exp_avg_sq"])
    assert [p.name for p in tmp_path.iterdir()] == ["c.safetensors"]


def test_the_rate_warms_up_holds_and_falls_in_every_phase():
    phases = [Phase(12, 2, 200, 1.0, decay=0.25), Phase(24, 2, 100, 0.5)]
    steps = list(steps_from(phases, 0))
    assert [step for step, _, _ in steps] == list(range(300))
    assert [phase for _, phase, _ in steps] == [phases[0]] * 200 + [phases[1]] * 100
    rates = [rate for _, _, rate in steps]
    assert rates[0] == pytest.approx(1 / WARMUP)
    assert rates[WARMUP:150] == [1.0] * (150 - WARMUP)
    assert all(a > b for a, b in itertools.pairwise(rates[150:200]))
    assert rates[199] == pytest.approx(1 / 50)
    assert rates[200:] == [0.5] * 100
    assert list(steps_from(phases, 170)) == steps[170:]
