"""The recipe of Pocket-Video-LLaVA from Pocket-LLaVA.

First a tower of six blocks learns to see as Pocket-LLaVA's. Then projector and language model learn
to answer after the frozen tower. What it sees of a clip is kept in a file and asked about several
times. A prompt has 2,056 tokens before its question, and most of them show background: the language
model first sees the centers of the shapes and a share of the other tokens; whole prompts come last.
What it sees stands at its own position, but in some lessons the gaps are closed and CLS may be
missing, so that a position alone does not tell the frame.
"""

from __future__ import annotations

import copy
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from prunesid.pocket.benchmarks import HELD_OUT_SEED
from prunesid.pocket.questions import Question
from prunesid.pocket.training.batches import to_pixels
from prunesid.pocket.training.decoder import Answered, packed_forward
from prunesid.pocket.training.grounding import NONE
from prunesid.pocket.training.language import GROUNDING_WEIGHT, Scores, word_loss
from prunesid.pocket.training.loop import run_stage
from prunesid.pocket.training.packing import pack
from prunesid.pocket.training.schedule import Phase, quick_phases
from prunesid.pocket.training.tower import tower_forward
from prunesid.pocket.video.clips import MOMENTS, Film, moments, sample_film
from prunesid.pocket.video.model import (
    FRAME_GRID,
    build_model,
    build_processor,
    share_tower,
)
from prunesid.pocket.video.questions import ask
from prunesid.pocket.video.steps import (
    FRAME,
    STEP_NAMES,
    TOKENS,
    Probes,
    actor_centers,
    owners,
    question_loss,
    steps_of,
    token_loss,
    token_targets,
)
from prunesid.pocket.video.tower import train_tower
from prunesid.pocket.vocabulary import ids

TOWER = [Phase(FRAME_GRID, 16, 400, 1.5e-3, decay=0.7)]
LANGUAGE = [
    Phase(FRAME_GRID, 4, 3200, 1.2e-3, decay=0.35, backdrop=0.05),
    Phase(FRAME_GRID, 4, 80, 5e-4, decay=1.0),
]
SEED = 4
CLOSED = 0.4  # share of the lessons whose gaps are closed
ATTRIBUTES = 3  # questions on looks per clip
TOKEN_WEIGHT = 1.0
# Share of a shape's patches around its center that are seen of a thinned prompt.
SHOWN = 0.35
FIRST_CLIPS = 600  # to begin with; a step adds one to the clips that are asked about
MEASURED_CLIPS = 24


class Learner(nn.Module):
    """What is trained after the tower: parts of the model, and readouts of its hidden states."""

    def __init__(self, model: Any):
        super().__init__()
        self.projector = model.model.multi_modal_projector
        self.language = model.model.language_model
        self.probes = Probes(self.language.config.hidden_size)


@dataclass(frozen=True)
class Lesson:
    """A clip with questions.

    features  (TOKENS, D) of its frames, CLS first
    owner     (TOKENS,) of `steps.owners`
    kept      (K,) the numbers of the visual tokens that are seen
    closed    whether these follow each other without gaps
    """

    film: Film
    features: Tensor
    owner: Tensor
    questions: list[Question]
    kept: Tensor
    closed: bool = False


@torch.no_grad()
def features_of(tower: Any, frames: np.ndarray) -> Tensor:
    """(TOKENS, D) of frames; `tower` ends with the block whose features are taken."""
    own = torch.arange(FRAME).expand(len(frames), -1)
    return tower_forward(tower, to_pixels(frames), own)[-1].flatten(0, 1)


class Library:
    """Clips in float16 files of a folder, seen by the tower when they are first asked for."""

    def __init__(self, folder: Path, tower: Any):
        self.folder, self.tower = folder, tower
        folder.mkdir(parents=True, exist_ok=True)

    def clip(self, number: int) -> tuple[Film, Tensor, Tensor]:
        """A film, the features (TOKENS, D) of its frames and `steps.owners`."""
        film = sample_film(np.random.default_rng([SEED, 2, number]))
        path = self.folder / f"{number}.safetensors"
        if not path.exists():
            frames, masks = moments(film)
            found = {"features": features_of(self.tower, frames).half(), "owner": owners(masks)}
            partial = path.with_suffix(".partial")
            save_file(found, partial)
            os.replace(partial, path)
        stored = load_file(path)
        return film, stored["features"].float(), stored["owner"]


def lesson(library: Library, phase: Phase, step: int, turn: int) -> Lesson:
    """The `turn`-th clip of a step: a pure function of its numbers."""
    rng = np.random.default_rng([SEED, 1, step, turn])
    film, features, owner = library.clip(int(rng.integers(FIRST_CLIPS + step)))
    closed = bool(rng.random() < CLOSED)
    chance = torch.from_numpy(rng.random(TOKENS))
    seen = torch.ones(TOKENS, dtype=torch.bool)
    if phase.backdrop < 1 or closed:
        backdrop = min(phase.backdrop, 0.1) * rng.uniform(0, 2)
        seen = torch.where(owner == NONE, chance < backdrop, chance < SHOWN)
        seen |= actor_centers(film)[0].amax(0) > 0.2
        seen[::FRAME] = not closed or rng.random() < 0.3
    # Drawn twice, for more of the questions that name one of several things.
    questions = list(dict.fromkeys(ask(film, rng, ATTRIBUTES) + ask(film, rng, ATTRIBUTES)))
    return Lesson(film, features, owner, questions, seen.nonzero()[:, 0], closed)


def answered(learner: Learner, given: Lesson) -> Answered:
    """All questions of a lesson, asked at once."""
    tokens = learner.projector(given.features[given.kept])[None]
    packed, steps = pack([given.film], [given.questions], steps_of, STEP_NAMES)
    embeddings = learner.language.embed_tokens.weight
    opening = ids(["<s>", "USER:"])
    prefix = torch.cat([embeddings[opening][None], tokens], 1)
    count = len(opening)
    places, end = torch.cat([torch.arange(count), count + given.kept]), count + TOKENS
    if given.closed:
        end = prefix.shape[1]
        places = torch.arange(end)
    states = packed_forward(learner.language, prefix, packed, places, end)
    return Answered(states, tokens, states.questions[-1] @ embeddings.T, packed, steps)


def loss_of(learner: Learner, given: Lesson, found: Answered) -> Tensor:
    """The words' loss, that of the answers' steps, and that of the visual tokens."""
    states, probes = found.states, learner.probes
    asked = question_loss(states, found.tokens, probes, found.steps, given.film, given.kept)
    targets = token_targets(given.film, given.owner)
    targets = {name: each[given.kept] for name, each in targets.items()}
    seen = [each[0, -len(given.kept) :] for each in states.prefix]
    steps = asked + TOKEN_WEIGHT * token_loss(seen, probes, targets)
    return word_loss(found.logits, found.packed) + GROUNDING_WEIGHT * steps


def middle(frames: np.ndarray) -> np.ndarray:
    """The frame in the middle, as often as there are frames."""
    return np.repeat(frames[MOMENTS // 2][None], MOMENTS, 0)


@torch.no_grad()
def measure(learner: Learner, tower: Any, clips: int) -> dict[str, dict[str, float]]:
    """Accuracy (%) per family on held-out clips.

    It is given with all tokens, with a few whose gaps are closed, with the middle frame alone and
    with the frames in another order.
    """
    scores = {name: Scores() for name in ("all", "few", "middle", "shuffled")}
    for index in range(clips):
        rng = np.random.default_rng((HELD_OUT_SEED, SEED, index))
        film = sample_film(rng)
        frames, masks = moments(film)
        asked, owner = ask(film, rng, ATTRIBUTES), owners(masks)
        shown = {"all": frames, "few": frames, "middle": middle(frames),
                 "shuffled": frames[rng.permutation(MOMENTS)]}  # fmt: skip
        few = (owner >= 0) | torch.from_numpy(rng.random(TOKENS) < 0.05)
        few[::FRAME] = False
        for name, seen in shown.items():
            kept = few.nonzero()[:, 0] if name == "few" else torch.arange(TOKENS)
            given = Lesson(film, features_of(tower, seen), owner, asked, kept, name == "few")
            found = answered(learner, given)
            scores[name].add(found.logits, found.packed, [[q.family for q in asked]])
    return {name: own.summary() for name, own in scores.items()}


def train_language(model: Any, phases: list[Phase], folder: Path) -> None:
    """Train projector and language model in place, resuming from `folder`.

    `folder/video.jsonl` records accuracies.
    """
    model.requires_grad_(False)
    torch.manual_seed(SEED)
    learner = Learner(model).requires_grad_(True)
    tower = copy.deepcopy(model.model.video_tower)
    tower.encoder.layers = tower.encoder.layers[:-1]  # features are from the last block but one
    matrices = [p for p in learner.language.layers.parameters() if p.ndim == 2]
    library = Library(folder / "clips", tower)
    scores = Scores()

    def learn(step: int, phase: Phase) -> float:
        shown = 0.0
        for turn in range(phase.batch):
            given = lesson(library, phase, step, turn)
            found = answered(learner, given)
            loss = loss_of(learner, given, found) / phase.batch
            loss.backward()
            shown += loss.item()
            families = [f"{q.family}/{q.topic}" for q in given.questions]
            scores.add(found.logits, found.packed, [families])
        return shown

    run_stage(
        folder / "video.safetensors", learner, matrices, phases, learn,
        lambda: {"training": scores.summary(), **measure(learner, tower, MEASURED_CLIPS)},
    )  # fmt: skip


def train(checkpoints: Path, quick: bool) -> tuple[Any, Any]:
    """The trained model and its processor; see `prunesid.pocket.training.train`."""
    tower, language = map(quick_phases, (TOWER, LANGUAGE)) if quick else (TOWER, LANGUAGE)
    model = build_model()
    train_tower(model.model.video_tower, tower, checkpoints, SEED)
    share_tower(model)
    train_language(model, language, checkpoints)
    return model, build_processor()
