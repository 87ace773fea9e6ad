"""The recipe of Pocket-LLaVA-NeXT from Pocket-LLaVA: projector, newline and language model.

The tower stays as it is, so what it sees of an image is kept in a file and asked about several
times. A prompt has up to 2,930 tokens before its question, and most of them show background. So
the language model first sees one in seven of those, and whole prompts last. What it sees stands at
its own position, but in a quarter of the lessons the gaps are closed and newlines may be missing.
A position alone then does not tell a place, as in models trained on images of many sizes.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prunesid.pocket.benchmarks import HELD_OUT_SEED
from prunesid.pocket.next.model import build_model, build_processor
from prunesid.pocket.next.scenes import sample_scene
from prunesid.pocket.next.views import BASE, Gallery, View, layout
from prunesid.pocket.questions import EVALUATED, Question, ask
from prunesid.pocket.scenes import Scene
from prunesid.pocket.training.decoder import Answered, packed_forward
from prunesid.pocket.training.grounding import NONE, PLACES, Probes, grounding_loss, shape_centers
from prunesid.pocket.training.language import GROUNDING_WEIGHT, Scores, word_loss
from prunesid.pocket.training.loop import run_stage
from prunesid.pocket.training.packing import choose, pack
from prunesid.pocket.training.schedule import Phase, quick_phases
from prunesid.pocket.vocabulary import ids

PHASES = [
    Phase(24, 4, 2600, 1.2e-3, decay=0.5, backdrop=0.15),
    Phase(24, 4, 500, 8e-4, decay=1.0),
]
CLOSED = 0.25  # share of the lessons whose gaps are closed
FEW = 0.15  # share of the background that is seen there
SEED = 3
FIRST_IMAGES = 300  # to begin with; a step adds one to the images that are asked about
PLACE_BLOCK, PLACE_WEIGHT = 1, 0.5
MEASURED_IMAGES = 30


class Learner(nn.Module):
    """What is trained: parts of the model, and the readouts of its hidden states.

    `place` reads where a patch lies in the image from its token's states. The tower sees crops one
    by one, so the language model has to find that out from positions and newlines.
    """

    def __init__(self, model: Any):
        super().__init__()
        self.projector = model.model.multi_modal_projector
        self.language = model.model.language_model
        self.newline = model.model.image_newline
        width = self.language.config.hidden_size
        self.probes = Probes(width)
        self.place = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * PLACES))


@dataclass(frozen=True)
class Lesson:
    """An image with questions.

    kept    (K,) the numbers of the visual tokens that are seen
    closed  whether these follow each other without gaps
    """

    scene: Scene
    view: View
    questions: list[Question]
    kept: Tensor
    closed: bool = False


def lesson(gallery: Gallery, phase: Phase, step: int, turn: int) -> Lesson:
    """The `turn`-th image of a step: a pure function of its numbers."""
    rng = np.random.default_rng([SEED, 1, step, turn])
    name = (SEED, 0, int(rng.integers(FIRST_IMAGES + step)))
    scene = sample_scene(np.random.default_rng(name))
    view = gallery.view(name, scene)
    closed = rng.random() < CLOSED
    backdrop = min(FEW, phase.backdrop) if closed else phase.backdrop
    seen = view.content | (torch.from_numpy(rng.random(len(view.content))) < backdrop)
    if closed and rng.random() < 0.5:
        seen &= layout(scene.size).source != NONE
    return Lesson(scene, view, choose(scene, rng), seen.nonzero()[:, 0], closed)


def visual_tokens(learner: Learner, features: Tensor, source: Tensor) -> Tensor:
    """(V, E) the embeddings of an image as the model has them, newlines included."""
    tokens = learner.projector(features[source.clamp_min(0)])
    return torch.where((source == NONE)[:, None], learner.newline, tokens)


def answered(learner: Learner, given: Lesson) -> Answered:
    """All questions of a lesson, asked at once."""
    source = layout(given.scene.size).source
    tokens = visual_tokens(learner, given.view.features, source[given.kept])[None]
    packed, steps = pack([given.scene], [given.questions])
    embeddings = learner.language.embed_tokens.weight
    opening = ids(["<s>", "USER:"])
    prefix = torch.cat([embeddings[opening][None], tokens], 1)
    count = len(opening)
    places, end = torch.cat([torch.arange(count), count + given.kept]), count + len(source)
    if given.closed:
        end = prefix.shape[1]
        places = torch.arange(end)
    states = packed_forward(learner.language, prefix, packed, places, end)
    return Answered(states, tokens, states.questions[-1] @ embeddings.T, packed, steps)


def loss_of(learner: Learner, given: Lesson, found: Answered) -> Tensor:
    """The words' loss, that of the answers' steps, and that of the patches' places."""
    where = layout(given.scene.size)
    map_centers = shape_centers([given.scene])
    centers = torch.zeros(1, map_centers.shape[1], len(where.source))
    centers[:, :, where.map_tokens] = map_centers
    grounding = grounding_loss(
        found.states.questions, found.tokens, learner.probes, found.steps, centers[:, :, given.kept]
    )
    seen = found.states.prefix[PLACE_BLOCK][0, -len(given.kept) :]
    place = where.place[given.kept]
    placed = place[:, 0] != NONE
    logits = learner.place(seen[placed]).unflatten(1, (2, PLACES))
    place_loss = F.cross_entropy(logits.flatten(0, 1), place[placed].flatten())
    words = word_loss(found.logits, found.packed)
    return words + GROUNDING_WEIGHT * grounding + PLACE_WEIGHT * place_loss


@torch.no_grad()
def measure(learner: Learner, gallery: Gallery, images: int) -> dict[str, dict[str, float]]:
    """Accuracy (%) per family on held-out images.

    It is given with all tokens, with the base crop's, and with a few whose gaps are closed.
    """
    scores = {name: Scores() for name in ("all", "base", "few")}
    for index in range(images):
        numbers = (HELD_OUT_SEED, SEED, index)
        rng = np.random.default_rng(numbers)
        scene = sample_scene(rng)
        asked = ask(scene, rng, dict.fromkeys((*EVALUATED, "locate", "character"), 2))
        view, source = gallery.view(numbers, scene), layout(scene.size).source
        whole = torch.arange(len(source))
        chance = torch.from_numpy(rng.random(len(source)))
        few = whole[(view.content | (chance < FEW)) & (source != NONE)]
        for name, kept in (("all", whole), ("base", whole[:BASE]), ("few", few)):
            given = Lesson(scene, view, asked, kept, closed=name == "few")
            found = answered(learner, given)
            scores[name].add(found.logits, found.packed, [[q.family for q in asked]])
    return {name: own.summary() for name, own in scores.items()}


def train_language(model: Any, phases: list[Phase], folder: Path) -> None:
    """Train `model` in place, resuming from `folder`, where `next.jsonl` records accuracies."""
    model.requires_grad_(False)
    torch.manual_seed(SEED)
    learner = Learner(model).requires_grad_(True)
    tower = copy.deepcopy(model.model.vision_tower)
    tower.encoder.layers = tower.encoder.layers[:-1]  # features are from the last block but one
    gallery = Gallery(folder / "views", tower, build_processor().image_processor)
    matrices = [p for p in learner.language.layers.parameters() if p.ndim == 2]
    scores = Scores()

    def learn(step: int, phase: Phase) -> float:
        shown = 0.0
        for turn in range(phase.batch):
            given = lesson(gallery, phase, step, turn)
            found = answered(learner, given)
            loss = loss_of(learner, given, found) / phase.batch
            loss.backward()
            shown += loss.item()
            scores.add(found.logits, found.packed, [[q.family for q in given.questions]])
        return shown

    run_stage(
        folder / "next.safetensors", learner, matrices, phases, learn,
        lambda: {"training": scores.summary(), **measure(learner, gallery, MEASURED_IMAGES)},
    )  # fmt: skip


def train(checkpoints: Path, quick: bool) -> tuple[Any, Any]:
    """The trained model and its processor; see `prunesid.pocket.training.train`."""
    model = build_model()
    train_language(model, quick_phases(PHASES) if quick else PHASES, checkpoints)
    return model, build_processor()
