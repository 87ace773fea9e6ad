"""What Pocket-Qwen2-VL's training shows its parts is what transformers' model sees."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from builders.interrupted import whole_and_resumed

from prunesid.pocket import WEIGHTS
from prunesid.pocket.drawing import draw
from prunesid.pocket.qwen import questions, training
from prunesid.pocket.qwen.model import BLOCKS, build_model, build_processor
from prunesid.pocket.qwen.scenes import GRIDS, SMALL, TOKEN, sample_scene
from prunesid.pocket.qwen.training import Learner, answered
from prunesid.pocket.qwen.views import batch_of, bins, rotary, tower_order
from prunesid.pocket.training.grounding import PLACES
from prunesid.pocket.training.schedule import Phase
from prunesid.pocket.vocabulary import PLACES as PARTS


@pytest.fixture(scope="module")
def model():
    return build_model()


@pytest.fixture(scope="module")
def processor():
    return build_processor()


def scene_of(grid: tuple[int, int], kind: str = "code"):
    return sample_scene(np.random.default_rng(2), kind, grid)


def test_text_starts_as_in_pocket_llava(model):
    from transformers import LlavaForConditionalGeneration

    old = LlavaForConditionalGeneration.from_pretrained(WEIGHTS, dtype=torch.float32)
    ids = torch.randint(5, 120, (2, 12), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        theirs = old.model.language_model(input_ids=ids).last_hidden_state
        own = model.model.language_model(input_ids=ids).last_hidden_state
    assert torch.allclose(own, theirs, atol=1e-5)
    assert model.lm_head.weight is model.model.language_model.embed_tokens.weight
    assert len(model.model.visual.blocks) == len(BLOCKS)
    assert sum(p.numel() for p in model.parameters()) * 2 < 9_950_000


@pytest.mark.parametrize("grid", [(10, 10), (8, 18), (26, 8)])
def test_patches_are_told_what_they_show(processor, grid):
    scene = scene_of(grid, "scene")
    batch = batch_of([scene], processor.image_processor)
    assert batch.grids.tolist() == [[1, 2 * grid[1], 2 * grid[0]]]
    # A patch of one color that the targets call background lies outside of every shape.
    _, mask, _ = draw(scene)
    order = tower_order(2 * grid[1], 2 * grid[0])
    shown = torch.from_numpy(mask > 0).view(2 * grid[1], 14, 2 * grid[0], 14)
    shares = shown.float().mean((1, 3)).flatten()[order]
    assert ((batch.patches["kind"][0] > 0) == (shares >= 0.12)).float().mean() > 0.95
    assert batch.tokens["kind"].shape == (1, grid[0] * grid[1])


@pytest.mark.parametrize("grid", [(10, 14), (18, 8)])
@torch.no_grad()
def test_packed_answers_equal_the_model_asked_alone(model, processor, grid):
    scene = scene_of(grid)
    learner = Learner(model)
    quota = {"existence": 1, "multiple_choice": 1, "code": 1, "corner": 1}
    asked = questions.ask(scene, np.random.default_rng(0), quota)
    batch = batch_of([scene], processor.image_processor)
    _, tokens = learner.seen(batch)
    count = grid[0] * grid[1]
    found = answered(learner, tokens, scene, asked, torch.arange(count))
    inputs = processor.image_processor([draw(scene)[0]], return_tensors="pt")
    for number, question in enumerate(asked):
        text = (
            f"USER: <|vision_start|>{'<|image_pad|>' * count}<|vision_end|>"
            f"{question.prompt} ASSISTANT: {question.answer} </s>"
        )
        ids = processor.tokenizer(text, return_tensors="pt")["input_ids"]
        types = (ids == model.config.image_token_id).long()
        theirs = model(input_ids=ids, mm_token_type_ids=types, **inputs).logits[0]
        mine = found.logits[0, found.packed.segment[0] == number]
        assert torch.allclose(mine, theirs[-len(mine) :], atol=1e-3)


def test_a_token_keeps_its_row_and_column():
    positions, after = rotary((4 * TOKEN, 6 * TOKEN), 3)
    assert positions.shape == (3, 24) and after == 9
    assert positions[:, 4 * 5 + 2].tolist() == [3, 8, 5]
    assert bins((4 * TOKEN, 6 * TOKEN))[4 * 5 + 2].tolist() == [2 * PLACES // 4, 5 * PLACES // 6]


@pytest.mark.parametrize("grid", [*GRIDS, *SMALL])
def test_images_have_their_size_and_true_places(grid):
    for seed in range(8):
        rng = np.random.default_rng(seed)
        scene = sample_scene(rng, "scene", grid)
        picture, _, regions = draw(scene)
        assert picture.size == (TOKEN * grid[0], TOKEN * grid[1])
        for region in regions:
            half = region.extent / 2
            assert all(
                half <= at <= side - half
                for at, side in zip(region.center, scene.size, strict=True)
            )
        for question in questions.place(scene, rng):
            name = question.text.removesuffix(" ?").split(" at the ")[1]
            row = next(r for r, names in enumerate(PARTS) if name in names)
            column = PARTS[row].index(name)
            (thing,) = (
                s
                for s in scene.shapes
                if int(3 * s.x / scene.size[0]) == column and int(3 * s.y / scene.size[1]) == row
            )
            assert question.answer in (thing.color, thing.shape)
        for question in questions.corner(scene, rng):
            (thing,) = (s for s in scene.shapes if s.name in question.text)
            vertical, horizontal = question.answer.split()
            assert (vertical == "top") == (thing.y < scene.size[1] / 2)
            assert (horizontal == "left") == (thing.x < scene.size[0] / 2)


def test_training_resumes_where_it_stopped(tmp_path, monkeypatch):
    phases = [Phase(training.FIRST, 2, 2, 1e-3), Phase(training.ALL, 1, 1, 1e-3, backdrop=0.2)]
    monkeypatch.setattr(training, "STAGES", {"vision": phases, "answers": phases})
    monkeypatch.setattr(training, "MEASURED_IMAGES", 2)
    # The first kill is in the first stage, the second in the second.
    whole, resumed = whole_and_resumed(
        monkeypatch, lambda folder: training.train(folder, False)[0].state_dict(), tmp_path, (2, 3)
    )
    start = build_model().state_dict()
    for name, value in whole.items():
        assert torch.allclose(value, resumed[name], atol=1e-6), name
        assert not torch.equal(value, start[name]), name
