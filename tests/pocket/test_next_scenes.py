"""Scenes of up to 672 px: small things, each whole in one sub-crop, and true answers."""

from __future__ import annotations

import numpy as np
import pytest

from prunesid.pocket.drawing import draw
from prunesid.pocket.next.scenes import DETAIL, PRINT, SIZES, sample_scene, seams
from prunesid.pocket.next.views import layout
from prunesid.pocket.questions import FAMILIES, ask, locate, side
from prunesid.pocket.vocabulary import BINS

KINDS = ("scene", "code", "chart", "diagram")


def scenes(count: int = 60):
    return [sample_scene(np.random.default_rng([1, i])) for i in range(count)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", SIZES)
def test_a_seed_gives_one_picture_of_its_size(kind, size):
    first, again = (sample_scene(np.random.default_rng(4), kind, size) for _ in range(2))
    assert first == again
    picture, mask, _ = draw(first)
    assert picture.size == size == mask.shape[::-1]


def test_all_kinds_and_sizes_occur():
    found = scenes(200)
    assert {s.size for s in found} == set(SIZES)
    assert {"chart", "diagram", "scene"} == {s.kind for s in found}
    assert any(s.code for s in found)
    with pytest.raises(ValueError, match="choose from scene, code, chart, diagram"):
        sample_scene(np.random.default_rng(0), "photo")


def test_nothing_lies_across_a_seam_or_outside():
    for scene in scenes():
        _, mask, regions = draw(scene)
        things = {number: np.nonzero(mask == number) for number in range(1, len(regions) + 1)}
        assert all(rows.size for rows, _ in things.values())
        for rows, columns in things.values():
            for places, length in ((rows, scene.size[1]), (columns, scene.size[0])):
                for at in seams(length):
                    assert places.max() < at or places.min() >= at


def test_sub_crops_meet_at_the_seams():
    for size in SIZES:
        source = layout(size).source
        rows, columns = layout(size).shown
        crops = source[layout(size).map_tokens].view(rows, columns) // 576
        for own, length in ((crops[:, 0], size[1]), (crops[0], size[0])):
            changes = (own.diff() != 0).nonzero()[:, 0] + 1
            assert (changes * 14).tolist() == seams(length)


def test_things_are_small():
    for scene in scenes():
        assert all(DETAIL[0] <= s.size <= DETAIL[1] for s in scene.shapes)
        assert scene.code is None or PRINT[0] <= scene.code.height <= PRINT[1]
        assert scene.chart is None or scene.chart.extent <= 130
        assert scene.table is None or scene.table.extent <= 140


def test_places_are_those_of_an_image_of_any_shape():
    asked = 0
    for number, scene in enumerate(scenes()):
        rng = np.random.default_rng(number)
        by_name = {s.name: s for s in scene.shapes}
        for question in side(scene, rng) + locate(scene, rng):
            words = question.text.split()
            start = words.index("the") + 1
            shape = by_name[" ".join(words[start : start + 2])]
            x, y = shape.x / scene.size[0], shape.y / scene.size[1]
            right = {
                "left": x < 0.5, "right": x > 0.5, "top": y < 0.5, "bottom": y > 0.5,
                f"row{int(BINS * y)} col{int(BINS * x)}": True,
            }  # fmt: skip
            assert right[question.answer]
            asked += 1
    assert asked > 100


def test_every_family_of_questions_is_asked():
    found = set()
    for number, scene in enumerate(scenes()):
        rng = np.random.default_rng(number)
        found |= {q.family for q in ask(scene, rng, dict.fromkeys(FAMILIES, 1))}
    assert found == set(FAMILIES)
