"""What Pocket-Video-LLaVA's training shows its language model is what transformers' model sees."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
from builders.interrupted import whole_and_resumed
from transformers import AutoModelForImageTextToText, AutoTokenizer

from prunesid.families import load
from prunesid.families.video_llava import VideoLlava
from prunesid.pocket import WEIGHTS
from prunesid.pocket.evaluate import clip_of
from prunesid.pocket.model import save
from prunesid.pocket.training.grounding import NONE
from prunesid.pocket.training.schedule import Phase
from prunesid.pocket.video import training
from prunesid.pocket.video.clips import MOMENTS, moments, sample_film
from prunesid.pocket.video.model import BLOCKS, PATCHES, build_model, build_processor, window
from prunesid.pocket.video.questions import ask, visitors
from prunesid.pocket.video.steps import (
    FRAME,
    TOKENS,
    WAYS,
    Steps,
    actor_centers,
    last_centers,
    owners,
    steps_of,
    token_targets,
)
from prunesid.pocket.video.tower import batch_of, imitation_loss, train_tower
from prunesid.pocket.video.training import Learner, Lesson, Library, answered, features_of, lesson


@pytest.fixture(scope="module")
def model():
    return build_model()


@pytest.fixture(scope="module")
def tower(model):
    found = copy.deepcopy(model.model.video_tower)
    found.encoder.layers = found.encoder.layers[:-1]
    return found


@pytest.fixture(scope="module")
def adapter(model):
    return VideoLlava(model, build_processor())


def film_of(kind: str = "motion"):
    return sample_film(np.random.default_rng(2), kind)


def test_it_starts_from_pocket_llava(model):
    old = AutoModelForImageTextToText.from_pretrained(WEIGHTS, dtype=torch.float32).state_dict()
    new = model.state_dict()
    words = old["model.language_model.embed_tokens.weight"]
    assert torch.equal(new["model.language_model.embed_tokens.weight"][: len(words)], words)
    for name, value in old.items():
        if "language_model.layers" in name or "projector" in name:
            assert torch.equal(new[name], value)
    prefix = "model.vision_tower."
    positions = old[f"{prefix}embeddings.position_embedding.weight"]
    for part in ("image_tower", "video_tower"):
        own = new[f"model.{part}.embeddings.position_embedding.weight"]
        assert torch.equal(own, positions[window(1)[0]])
        for number, block in enumerate(BLOCKS):
            weight = "self_attn.q_proj.weight"
            assert torch.equal(
                new[f"model.{part}.encoder.layers.{number}.{weight}"],
                old[f"{prefix}encoder.layers.{block}.{weight}"],
            )


def test_it_is_saved_as_the_family_reads_it(model, tmp_path):
    save(model, build_processor(), tmp_path)
    found = load(tmp_path)
    assert (tmp_path / "model.safetensors").stat().st_size < 10_000_000
    clip = clip_of(moments(film_of())[0])
    pixels = found.preprocess([clip])["pixel_values_videos"]
    assert torch.equal(pixels, VideoLlava(model, build_processor()).preprocess([clip])[
        "pixel_values_videos"])  # fmt: skip
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer("what moves left ? <video>")["input_ids"].count(tokenizer.unk_token_id) == 0
    settings = json.loads((tmp_path / "processor_config.json").read_text())
    assert settings["video_processor"]["image_mean"] == [0.5] * 3


@torch.no_grad()
def test_visual_tokens_equal_transformers(model, tower, adapter):
    frames, _ = moments(film_of())
    own = Learner(model).projector(features_of(tower, frames))
    inputs = adapter.preprocess([clip_of(frames)])
    theirs = model.model.get_video_features(**inputs, return_dict=True).pooler_output
    assert torch.allclose(own, theirs.flatten(0, 1), atol=1e-4)


@torch.no_grad()
def test_packed_answers_equal_the_model_asked_alone(model, tower, adapter):
    film = film_of("order")
    frames, masks = moments(film)
    asked = ask(film, np.random.default_rng(0), 1)[:3]
    everything = torch.arange(TOKENS)
    found = answered(
        Learner(model), Lesson(film, features_of(tower, frames), owners(masks), asked, everything)
    )
    inputs = adapter.preprocess([clip_of(frames)])
    for number, question in enumerate(asked):
        text = f"USER: {'<video> ' * TOKENS}{question.prompt} ASSISTANT: {question.answer} </s>"
        tokens = adapter.processor.tokenizer(text, return_tensors="pt")["input_ids"]
        theirs = model(input_ids=tokens, **inputs).logits[0]
        mine = found.logits[0, found.packed.segment[0] == number]
        assert torch.allclose(mine, theirs[-len(mine) :], atol=1e-3)


@pytest.mark.parametrize("closed", [False, True])
@torch.no_grad()
def test_what_is_seen_of_a_prompt_stands_at_its_position(model, tower, adapter, closed):
    film = film_of()
    frames, masks = moments(film)
    kept = torch.arange(3, TOKENS, 7)
    asked = ask(film, np.random.default_rng(0), 1)[:1]
    given = Lesson(film, features_of(tower, frames), owners(masks), asked, kept, closed)
    found = answered(Learner(model), given)
    language = model.model.language_model
    words = language.embed_tokens.weight
    opening = adapter.processor.tokenizer.convert_tokens_to_ids(["<s>", "USER:"])
    inputs = torch.cat([words[opening], found.tokens[0], words[found.packed.ids[0]]])
    length = len(found.packed.ids[0])
    places = torch.cat([torch.arange(2), 2 + kept, 2 + TOKENS + torch.arange(length)])
    if closed:
        places = torch.arange(len(inputs))
    reference = language(inputs_embeds=inputs[None], position_ids=places[None]).last_hidden_state
    mine = found.packed.segment[0] == 0
    expected = reference[0, -length:] @ words.T
    assert torch.allclose(found.logits[0, mine], expected[mine], atol=1e-3)


def test_the_centers_of_shapes_are_not_dropped(tower, tmp_path, monkeypatch):
    library = Library(tmp_path, tower)
    for closed in (0, 1):
        monkeypatch.setattr(training, "CLOSED", closed)
        few = lesson(library, Phase(16, 1, 1, 0.0, backdrop=0.05), 3, 0)
        whole = lesson(library, Phase(16, 1, 1, 0.0), 3, 0)
        assert few.film == whole.film
        assert few.closed == bool(closed)
        kept = torch.zeros(TOKENS).index_fill(0, few.kept, 1)
        assert (actor_centers(few.film)[0] * kept).sum() > 0.7 * actor_centers(few.film).sum()
        assert len(few.kept) < 0.3 * TOKENS
        if not closed:
            assert len(whole.kept) == TOKENS
            assert (kept[::FRAME] == 1).all()


def test_a_library_keeps_what_the_tower_saw(tower, tmp_path):
    film, features, owner = Library(tmp_path, tower).clip(5)
    again, stored, theirs = Library(tmp_path, None).clip(5)
    assert film == again
    assert torch.equal(features, stored) and torch.equal(owner, theirs)
    frames, masks = moments(film)
    assert torch.allclose(features, features_of(tower, frames), atol=0.02, rtol=1e-3)
    assert torch.equal(owner, owners(masks))


def test_targets_are_those_of_the_patches():
    for kind in ("motion", "order", "repetition"):
        film = film_of(kind)
        owner = owners(moments(film)[1])
        targets = token_targets(film, owner)
        assert (owner[::FRAME] == NONE).all()
        assert targets["frame"].tolist() == [n for n in range(MOMENTS) for _ in range(FRAME)]
        for name in ("way", "times", "rank"):
            assert (targets[name][owner == NONE] == NONE).all()
        came = [a.name for a in visitors(film)] if kind == "order" else []
        for number, actor in enumerate(film.actors):
            own = owner == number
            assert set((own.nonzero()[:, 0] // FRAME).tolist()) == {
                t for t, there in enumerate(actor.shown) if there
            }
            late = own & (targets["frame"] >= 2)
            assert (targets["way"][late] == WAYS.index(actor.direction)).all()
            last = own & (targets["frame"] == actor.last)
            times = NONE if all(actor.shown) else actor.times - 1
            assert (targets["times"][last] == times).all()
            if came:
                rank = came.index(actor.name) if actor.name in came else NONE
                assert (targets["rank"][own] == rank).all()
        centers = actor_centers(film)
        assert torch.allclose(
            centers[0].sum(1), torch.tensor([float(sum(a.shown)) for a in film.actors])
        )
        ends = last_centers(film, centers)[0]
        assert torch.allclose(ends.sum(1), torch.ones(len(film.actors)))
        for own, actor in zip(ends, film.actors, strict=True):
            assert set((own.nonzero()[:, 0] // FRAME).tolist()) == {actor.last}


def test_steps_stand_at_the_words_that_they_belong_to():
    film = film_of("repetition")
    actor = next(a for a in film.actors if not all(a.shown))
    (question,) = [
        q
        for q in ask(film, np.random.default_rng(0), 0)
        if q.text == f"how many times does the {actor.name} appear ?"
    ]
    steps = steps_of(question, film, 12)
    place = question.text.split().index(actor.shape.shape)
    number = film.actors.index(actor)
    for name, value in (
        ("fits", 1 << number), ("first", actor.first), ("last", actor.last),
        ("times", actor.times - 1), ("way", 0),
    ):  # fmt: skip
        expected = [NONE] * 12
        expected[place] = value
        assert getattr(steps, name) == expected
    assert [n for n, value in enumerate(steps.early) if value != NONE] == [8]
    assert set(steps.wanted) == {NONE}
    (first,) = [q for q in ask(film_of("order"), np.random.default_rng(0), 0) if q.topic == "first"]
    number = film_of("order").actors.index(visitors(film_of("order"))[0])
    assert steps_of(first, film_of("order"), 8).wanted == [*[NONE] * 3, 1 << number, *[NONE] * 4]
    assert set(vars(steps)) == set(Steps.__dataclass_fields__)


def test_a_tower_that_sees_alike_has_no_loss():
    _, shown = batch_of(0, 0, 2)
    wanted = [torch.randn(2, 1 + PATCHES, 8) for _ in range(3)]
    assert imitation_loss(wanted, wanted, shown) == 0
    other = [wanted[0], wanted[1] + 0.1, wanted[2]]
    assert imitation_loss(other, wanted, shown) > 0


def test_training_of_the_tower_resumes_where_it_was_killed(tmp_path, monkeypatch):
    def train(folder):
        built = build_model().model.video_tower
        train_tower(built, [Phase(16, 2, 3, 1e-3)], folder, 4)
        return built.state_dict()

    whole, resumed = whole_and_resumed(monkeypatch, train, tmp_path, (2,))
    assert all(torch.allclose(value, resumed[name], atol=1e-6) for name, value in whole.items())


def test_training_resumes_where_it_was_killed(tmp_path, monkeypatch):
    phases = [Phase(16, 1, 2, 1e-3, backdrop=0.02), Phase(16, 1, 1, 1e-3, backdrop=0.1)]
    monkeypatch.setattr(training, "MEASURED_CLIPS", 1)

    def train(folder):
        built = build_model()
        training.train_language(built, phases, folder)
        return built.state_dict()

    whole, resumed = whole_and_resumed(monkeypatch, train, tmp_path, (2,))
    start = build_model().state_dict()
    for name, value in whole.items():
        assert torch.allclose(value, resumed[name], atol=1e-6), name
        assert ("_tower" in name) == torch.equal(value, start[name]), name
    (line,) = (tmp_path / "a" / "video.jsonl").read_text().splitlines()
    assert {"all", "few", "middle", "shuffled", "training"} <= set(json.loads(line))
