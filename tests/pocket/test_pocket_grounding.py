"""The steps of an answer are what the scene says, at the words that name them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from prunesid.pocket.questions import FAMILIES, Question, ask
from prunesid.pocket.scenes import Background, Scene, Shape, sample_scene
from prunesid.pocket.training.grounding import (
    MOST,
    NONE,
    PLACES,
    Probes,
    Steps,
    grounding_loss,
    shape_centers,
    steps_of,
)
from prunesid.pocket.training.labels import center_shares
from prunesid.pocket.vocabulary import COLOR_NAMES, OPTIONS, SHAPES, words

SCENE = Scene(
    "scene",
    (168, 168),
    Background("plain", 1),
    origin=(168, 0),
    shapes=(
        Shape("circle", "red", 20, 100, 20),
        Shape("circle", "blue", 100, 30, 20),
        Shape("star", "red", 150, 150, 20),
    ),
)


def steps(text: str, answer: str = "yes", options: tuple[str, ...] = ()) -> tuple[list[str], Steps]:
    question = Question("any", text, answer, options=options)
    prompt = question.prompt.split()
    return prompt, steps_of(question, SCENE, len(prompt) + 3)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("red circle", 1), ("circle", 2), ("circles", 2), ("red object", 2), ("blue objects", 1),
        ("green star", 0), ("object", 3), ("rings", 0),
    ],
)  # fmt: skip
def test_a_name_fits_as_many_things_as_the_scene_holds(name, count):
    prompt, found = steps(f"is there a {name} ?")
    last = prompt.index("?") - 1
    assert found.matches[last] == count == found.fits[last].bit_count()
    assert [v for i, v in enumerate(found.matches) if i != last] == [NONE] * (len(prompt) + 2)
    assert (found.column[last] != NONE) == (count == 1)


def test_places_are_those_of_the_full_image():
    prompt, found = steps("is the red circle left of the blue circle ?")
    first, second = (i for i, word in enumerate(prompt) if word == "circle")
    bins = [int(PLACES * v / 336) for v in (168 + 20, 100, 168 + 100, 30)]
    assert [found.column[first], found.row[first]] == bins[:2]
    assert [found.column[second], found.row[second]] == bins[2:]


def test_a_name_points_to_the_shapes_that_it_fits():
    prompt, found = steps("is the circle left of the red object ?")
    assert found.fits[prompt.index("circle")] == 0b011
    assert found.fits[prompt.index("object")] == 0b101


def test_the_only_thing_that_a_name_fits_is_asked_for_its_color_and_shape():
    prompt, found = steps("what color is the star ? the blue object")
    for name, place in (("star", prompt.index("star")), ("blue object", prompt.index("object"))):
        (only,) = (s for s in SCENE.shapes if s.shape == name or f"{s.color} object" == name)
        assert COLOR_NAMES[found.color[place]] == only.color
        assert SHAPES[found.shape[place]] == only.shape
    prompt, found = steps("how many circles are there ?")
    assert found.color[prompt.index("circles")] == found.shape[prompt.index("circles")] == NONE


def test_centers_are_shared_among_the_patches_of_the_window_in_raster_order():
    alone = Scene("scene", (168, 168), Background("plain", 1), shapes=SCENE.shapes[2:])
    centers = shape_centers([SCENE, alone])
    assert centers.shape == (2, 3, 144)
    assert centers.argmax(2).tolist() == [[7 * 12 + 1, 2 * 12 + 7, 10 * 12 + 10], [130, 0, 0]]
    assert centers.sum(2).tolist() == [pytest.approx([1, 1, 1]), pytest.approx([1, 0, 0])]


@pytest.mark.parametrize(
    ("point", "shares"),
    [
        ((21, 35), {25: 1}),  # the middle of column 1, row 2
        ((28, 35), {25: 0.5, 26: 0.5}),  # the border of columns 1 and 2
        ((28, 42), {25: 0.25, 26: 0.25, 37: 0.25, 38: 0.25}),  # a corner
        ((24.5, 35), {25: 0.75, 26: 0.25}),
        ((0, 0), {0: 1}),
        ((168, 168), {143: 1}),
    ],
)
def test_a_point_is_shared_by_how_near_the_patches_lie(point, shares):
    found = center_shares(*point, rows=12, columns=12)
    assert {i: s for i, s in enumerate(found.tolist()) if s} == pytest.approx(shares)


def test_the_answer_is_asked_for_at_the_question_mark_and_options_are_judged():
    prompt, found = steps("what color is the star ?", "B", ("blue", "red", "pink", "cyan"))
    assert words()[found.early[prompt.index("?")]] == "red"
    judged = {prompt[i]: v for i, v in enumerate(found.right) if v != NONE}
    assert judged == {"blue": 0, "red": 1, "pink": 0, "cyan": 0}


def test_options_and_cells_of_tables_are_no_names_in_a_scene():
    _, found = steps("what is there ?", "A", ("circle", "star", "ring", "cross"))
    assert set(found.matches) == {NONE}
    rng = np.random.default_rng(0)
    table = sample_scene(rng, kind="diagram")
    for question in ask(table, rng, dict.fromkeys(FAMILIES, 9)):
        assert set(steps_of(question, table, 40).matches) == {NONE}


def test_every_question_of_every_scene_has_steps_within_range():
    rng = np.random.default_rng(5)
    for _ in range(60):
        scene = sample_scene(rng)
        for question in ask(scene, rng, dict.fromkeys(FAMILIES, 9)):
            length = len(question.prompt.split()) + 4
            found = steps_of(question, scene, length)
            assert all(len(v) == length for v in vars(found).values())
            assert max(found.matches) <= MOST
            assert max(found.column + found.row) < PLACES
            assert sum(v != NONE for v in found.early) == 1
            judged = [v for v in found.right if v != NONE]
            assert (sum(judged), len(judged)) == ((1, len(OPTIONS)) if question.options else (0, 0))


NOTHING = {name: torch.full((1, 4), NONE) for name in Steps.__dataclass_fields__}
CENTERS = torch.eye(9)[None, [2, 5, 7]]


def fitted(asked: dict[str, torch.Tensor], rounds: int = 80) -> tuple[float, float]:
    """The probes' loss on random states before and after they have learned them."""
    torch.manual_seed(0)
    probes = Probes(8)
    states = [torch.randn(1, 4, 8) for _ in range(6)]
    tokens = torch.randn(1, 9, 8)
    optimizer = torch.optim.Adam(probes.parameters(), 0.1)
    losses = []
    for _ in range(rounds):
        loss = grounding_loss(states, tokens, probes, asked, CENTERS)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return losses[0], losses[-1]


def test_the_loss_falls_to_zero_for_probes_that_know_and_ignores_what_is_not_asked():
    assert fitted(NOTHING, 1)[0] == 0
    unsure, sure = fitted(NOTHING | {"right": torch.tensor([[NONE, 0, NONE, 1]])})
    assert sure < 0.01 < unsure


def test_pointing_learns_one_patch_several_and_none():
    first, last = fitted(NOTHING | {"fits": torch.tensor([[0b010, NONE, 0b101, 0]])})
    # Of eight losses one is asked for; two patches at once cost ln 2 however well they are known.
    least = np.log(2) / 3 / 8
    assert least <= last < least + 0.01 < first
