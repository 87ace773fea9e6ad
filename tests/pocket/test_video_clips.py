"""Clips of the pocket world: what moves, comes and goes, true answers, and exact files."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import pairwise

import numpy as np
import pytest

from prunesid.images.media import media_of, read_clip
from prunesid.pocket.questions import Question
from prunesid.pocket.video.clips import (
    KINDS,
    MOMENTS,
    SIDE,
    VISIT,
    Film,
    frames_at,
    moments,
    sample_film,
)
from prunesid.pocket.video.files import video_of
from prunesid.pocket.video.questions import FAMILIES, ask, visitors
from prunesid.pocket.vocabulary import NUMBERS, ids, video_words


def films(kind: str | None = None, count: int = 60) -> list[Film]:
    return [sample_film(np.random.default_rng([1, i]), kind) for i in range(count)]


def places(masks: np.ndarray, number: int) -> list[tuple[float, float] | None]:
    """(x, y) of an actor's pixels at each moment, or None where there are none."""
    found = []
    for mask in masks:
        rows, columns = np.nonzero(mask == number + 1)
        found.append((columns.mean(), rows.mean()) if rows.size else None)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_gives_one_clip(kind):
    first, again = (sample_film(np.random.default_rng(4), kind) for _ in range(2))
    assert first == again
    frames, masks = moments(first)
    assert frames.shape == (MOMENTS, SIDE, SIDE, 3) and masks.shape == (MOMENTS, SIDE, SIDE)
    with pytest.raises(ValueError, match="choose from motion, repetition, change, order"):
        sample_film(np.random.default_rng(0), "cooking")


def test_frames_show_what_the_actors_do():
    for film in films():
        _, masks = moments(film)
        assert len({actor.name for actor in film.actors}) == len(film.actors)
        for number, actor in enumerate(film.actors):
            seen = places(masks, number)
            assert [place is not None for place in seen] == list(actor.shown)
            there = [place for place in seen if place is not None]
            moved = np.subtract(there[-1], there[0])
            if actor.direction:
                axis = 0 if actor.direction in ("left", "right") else 1
                forward = 1 if actor.direction in ("right", "down") else -1
                assert forward * moved[axis] == pytest.approx(actor.travel, abs=2)
                assert abs(moved[1 - axis]) < 1
            else:
                assert np.abs(moved).max() == 0


def test_nothing_covers_anything_else_and_tints_stay():
    for film in films(count=20):
        frames, masks = moments(film)
        for number in range(1, len(film.actors) + 1):
            inks = {tuple(pixel) for pixel in frames[masks == number]}
            areas = {int((mask == number).sum()) for mask in masks} - {0}
            # A moving shape covers some pixels more or less, as its place is rounded.
            assert max(areas) < 1.25 * min(areas)
            if film.actors[number - 1].shape.shape != "ring":
                assert len(inks) == 1


def test_the_number_of_frames_does_not_tell_the_order():
    for film in films("order"):
        came = visitors(film)
        assert len(came) == 3
        assert {sum(actor.shown) for actor in came} == {VISIT}
        assert [a.first for a in came] == sorted({a.first for a in came})
        others = [a for a in film.actors if a not in came]
        assert others and all(all(actor.shown) for actor in others)


def _true(film: Film, question: Question) -> str | None:
    """The answer, from the actors alone; None for a question on looks."""
    words = question.text.split()
    by_name = {actor.name: actor for actor in film.actors}
    named = [by_name[f"{a} {b}"] for a, b in pairwise(words)
             if f"{a} {b}" in by_name]  # fmt: skip
    yes = {True: "yes", False: "no"}
    if question.family == "motion":
        ways = {a.direction: a.name for a in film.actors if a.direction}
        if words[0] == "which":
            return named[0].direction
        if words[0] == "what":
            return ways[words[2]]
        return yes[bool(named[0].direction) if words[-2] == "move"
                   else named[0].direction == words[-2]]  # fmt: skip
    if question.family == "repetition":
        number = NUMBERS[named[0].times - 1]
        return number if words[0] == "how" else yes[number == words[-3]]
    if question.family == "change":
        end = 0 if "appear" in question.text else -1
        changed = [a.name for a in film.actors if not a.shown[end]]
        return changed[0] if words[0] != "does" else yes[named[0].name in changed]
    if question.family == "order":
        if words[0] == "what":
            return visitors(film)[("first", "second", "last").index(words[2])].name
        first, second = named
        return yes[(first.first < second.first) == ("before" in words)]
    return None


def test_answers_are_true_and_in_the_vocabulary():
    known = set(video_words())
    asked: dict[str, Counter[str]] = defaultdict(Counter)
    for number, film in enumerate(films(count=400)):
        for question in ask(film, np.random.default_rng(number), 2):
            assert {*question.prompt.split(), *question.answer.split()} <= known
            expected = _true(film, question)
            assert expected is None or question.answer == expected
            asked[f"{question.family}/{question.topic}"][question.answer] += 1
    assert {name.split("/")[0] for name in asked} == set(FAMILIES)
    for name, answers in asked.items():
        if set(answers) <= {"yes", "no"}:
            assert 0.4 < answers["yes"] / answers.total() < 0.6, name
    for name, choices in (("motion/direction", 4), ("repetition/count", 4)):
        assert max(asked[name].values()) < 1.35 * asked[name].total() / choices


def test_looks_are_of_the_only_one():
    looks = 0
    for film in films():
        for question in ask(film, np.random.default_rng(0), 9):
            if question.family != "attribute":
                continue
            shapes = [a.shape for a in film.actors]
            word = question.text.split()[4] if question.topic == "shape" else ""
            kind = question.text.split()[4] if question.topic == "color" else ""
            found = [s for s in shapes if word in ("", s.color) and kind in ("", s.shape)]
            assert [getattr(s, question.topic) for s in found] == [question.answer]
            looks += 1
    assert looks > 50


def test_words_of_images_keep_their_ids():
    from prunesid.pocket.vocabulary import words

    assert video_words()[: len(words())] == words()
    assert ids(video_words()) == list(range(len(video_words())))


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_holds_the_moments_exactly(kind, tmp_path):
    film = sample_film(np.random.default_rng(9), kind)
    written = video_of(film)
    assert written == video_of(film)
    path = tmp_path / "clip.mp4"
    path.write_bytes(written)
    (clip,) = media_of([written])
    assert np.array_equal(clip.frames, moments(film)[0])
    assert np.array_equal(read_clip(path).frames, clip.frames)
    whole = read_clip(path, clip.total)
    assert np.array_equal(whole.frames[1], frames_at(film, [0.5])[0][0])


def test_shortened_bytes_are_refused():
    film = sample_film(np.random.default_rng(9))
    with pytest.raises(ValueError, match="video of 200 bytes cannot be read"):
        media_of([video_of(film)[:200]])
