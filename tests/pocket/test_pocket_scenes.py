"""The pocket world: deterministic, labeled truly, and fair to a model that does not look."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from prunesid.pocket.drawing import draw
from prunesid.pocket.questions import EVALUATED, FAMILIES, absent_names, ask
from prunesid.pocket.scenes import PATCH, sample_scene
from prunesid.pocket.training.batches import scene_batch
from prunesid.pocket.training.labels import KINDS, patch_targets
from prunesid.pocket.vocabulary import NUMBERS, OPTIONS, plural, words

KINDS_OF_IMAGE = ("scene", "code", "chart", "diagram")


def scenes(count: int, seed: int = 0, size: int = 336, kind: str | None = None):
    return [sample_scene(np.random.default_rng([seed, i]), size, kind) for i in range(count)]


def asked(count: int, quota: int = 4):
    found = []
    for i, scene in enumerate(scenes(count, 3)):
        found += [
            (scene, q) for q in ask(scene, np.random.default_rng(i), dict.fromkeys(FAMILIES, quota))
        ]
    return found


@pytest.mark.parametrize("kind", KINDS_OF_IMAGE)
@pytest.mark.parametrize("size", [168, 336])
def test_a_seed_gives_one_picture(kind, size):
    for first, second in zip(scenes(5, 1, size, kind), scenes(5, 1, size, kind), strict=True):
        assert first == second
        pictures = [np.asarray(draw(scene)[0]) for scene in (first, second)]
        assert pictures[0].shape == (size, size, 3)
        assert np.array_equal(*pictures)


def test_objects_stay_inside_and_apart():
    for scene in scenes(60, kind="scene"):
        for i, a in enumerate(scene.shapes):
            assert a.size / 2 <= a.x <= scene.size[0] - a.size / 2
            assert a.size / 2 <= a.y <= scene.size[1] - a.size / 2
            for b in scene.shapes[:i]:
                assert max(abs(a.x - b.x), abs(a.y - b.y)) >= (a.size + b.size) / 2


def test_the_mask_shows_every_region_at_its_place():
    for scene in scenes(40):
        _, mask, regions = draw(scene)
        assert set(np.unique(mask)) - {0} == set(range(1, len(regions) + 1))
        for number, region in enumerate(regions, 1):
            if region.kind in ("circle", "square", "ring", "bar"):
                rows, columns = np.nonzero(mask == number)
                assert abs(columns.mean() - region.center[0]) < 3
                assert abs(rows.mean() - region.center[1]) < 3


def test_patch_targets_agree_with_a_plain_reading_of_the_mask():
    for scene in scenes(12, 2):
        _, mask, regions = draw(scene)
        targets = patch_targets(scene, mask, regions)
        side = scene.size[0] // PATCH
        for patch in range(0, side * side, 7):
            row, column = divmod(patch, side)
            tile = mask[row * PATCH : (row + 1) * PATCH, column * PATCH : (column + 1) * PATCH]
            area = Counter(tile.ravel().tolist())
            del area[0]
            owner = min(area, key=lambda n: (-area[n], n)) if area else 0
            kind = "background"
            if owner and area[owner] >= 0.12 * PATCH**2:
                kind = regions[owner - 1].kind
            assert KINDS[targets.kind[patch]] == kind
        assert targets.holds_center.sum() <= len(regions) + 1e-4


def test_windows_take_their_place_in_the_full_grid():
    window = sample_scene(np.random.default_rng(5), 168)
    batch = scene_batch([window])
    column, row = (v // PATCH for v in window.origin)
    assert batch["positions"].shape == (1, 145)
    assert batch["positions"][0, 1] == 1 + 24 * row + column
    assert batch["own"][0, 0].tolist() == pytest.approx([(column + 0.5) / 24, (row + 0.5) / 24])


def test_every_word_is_in_the_vocabulary():
    known = set(words())
    for _, question in asked(150):
        assert set(f"{question.prompt} {question.answer}".split()) <= known


def test_answers_are_true():
    for scene, q in asked(120, quota=6):
        text = q.text.split()
        names = Counter(f"{s.color} {s.shape}" for s in scene.shapes)
        if q.family == "existence":
            assert (f"{text[3]} {text[4]}" in names) == (q.answer == "yes")
        elif q.family == "count":
            tally = Counter()
            for s in scene.shapes:
                tally.update(
                    (plural(s.shape), f"{s.color} {plural(s.shape)}", f"{s.color} objects")
                )
            assert NUMBERS[tally[" ".join(text[2:-3])] - 1] == q.answer
        elif q.family == "side":
            (thing,) = [s for s in scene.shapes if s.name == f"{text[2]} {text[3]}"]
            place = {"left": thing.x < 168, "right": thing.x > 168,
                     "top": thing.y < 168, "bottom": thing.y > 168}  # fmt: skip
            assert place[q.answer]
        elif q.family == "code":
            assert tuple(q.answer.split()) == scene.code.characters
        elif q.family == "multiple_choice":
            assert len(set(q.options)) == 4
            assert q.answer in OPTIONS
            if q.topic == "chart":
                ranked = sorted(zip(scene.chart.values, scene.chart.colors, strict=True))
                best = ranked[-1] if text[4] in ("tallest", "biggest") else ranked[0]
                assert q.options[OPTIONS.index(q.answer)] == best[1]


def test_negatives_follow_their_strategy():
    for scene in scenes(30, kind="scene"):
        colors, shapes = {s.color for s in scene.shapes}, {s.shape for s in scene.shapes}
        present = {s.name for s in scene.shapes}
        for strategy, shared in (("adversarial", {2}), ("popular", {1}), ("random", {0, 1, 2})):
            for name in absent_names(scene, strategy):
                color, shape = name.split()
                assert name not in present
                assert (color in colors) + (shape in shapes) in shared
    with pytest.raises(ValueError, match="choose from adversarial, popular, random"):
        absent_names(scene, "hard")


def test_choices_are_balanced():
    answers = {family: Counter() for family in EVALUATED}
    for _, q in asked(600):
        if q.family in answers:
            answers[q.family][q.answer] += 1
    for family in ("existence", "judge"):
        assert answers[family]["yes"] / answers[family].total() == pytest.approx(0.5, abs=0.03)
    # Half of the relations are asked for as yes or no.
    for family, chance in (("multiple_choice", 0.25), ("background", 0.2), ("spatial", 0.25)):
        top = answers[family].most_common(1)[0][1] / answers[family].total()
        assert top < chance + 0.05, (family, answers[family])


def test_bad_requests_name_the_choices():
    with pytest.raises(ValueError, match="choose from scene, code, chart, diagram"):
        sample_scene(np.random.default_rng(0), kind="photo")
    with pytest.raises(ValueError, match="multiple of 14"):
        sample_scene(np.random.default_rng(0), size=100)
    with pytest.raises(ValueError, match="choose from existence"):
        ask(scenes(1)[0], np.random.default_rng(0), {"existance": 1})
