"""The recipe of Pocket-Qwen2-VL from Pocket-LLaVA's tower, projector and language model.

1. The tower, which now knows only where patches lie relative to each other, and the merger learn
   what every patch and token shows: on small images first.
2. The tower stays as it is, and the language model learns to answer. It has to find places from
   M-RoPE's positions, which it has never seen. Most tokens show background, so it first sees one in
   seven of those, and whole prompts last. Each token stands at its own position, as pruned ones do.
3. The tower learns on, with more printed codes. 4. The language model learns on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prunesid.pocket.benchmarks import HELD_OUT_SEED
from prunesid.pocket.questions import Question
from prunesid.pocket.qwen import questions
from prunesid.pocket.qwen.model import build_model, build_processor
from prunesid.pocket.qwen.scenes import GRIDS, SMALL, TOKEN, sample_scene
from prunesid.pocket.qwen.views import PER_IMAGE, Batch, batch_of, bins, rotary
from prunesid.pocket.scenes import Scene
from prunesid.pocket.training.alignment import LOOKS, PLACE_GROUPS, alignment_loss
from prunesid.pocket.training.decoder import Answered, packed_forward
from prunesid.pocket.training.grounding import PLACES, Probes, grounding_loss, shape_centers
from prunesid.pocket.training.language import (
    ALIGNMENT_WEIGHT,
    GROUNDING_WEIGHT,
    Scores,
    word_loss,
)
from prunesid.pocket.training.loop import Measured, run_stage
from prunesid.pocket.training.packing import QUOTA, choose, pack
from prunesid.pocket.training.schedule import READING, Phase, quick_phases
from prunesid.pocket.training.vision import Heads, patch_terms, report
from prunesid.pocket.vocabulary import ids

# A phase's `side` is the number of images' shapes to draw from: the small ones, or all.
FIRST, ALL = len(SMALL), len(SMALL) + len(GRIDS)
STAGES = {
    "vision": [Phase(FIRST, 16, 450, 1.5e-3), Phase(ALL, 4, 40, 1.2e-3, decay=1.0)],
    "answers": [
        Phase(FIRST, 4, 150, 1.2e-3, backdrop=0.3),
        Phase(ALL, 4, 350, 1.2e-3, backdrop=0.15),
    ],
    "reading": [
        Phase(FIRST, 16, 400, 1.2e-3, READING),
        Phase(ALL, 4, 80, 1e-3, READING, decay=1.0),
    ],
    "last": [
        Phase(ALL, 4, 1500, 1.2e-3, decay=0.6, backdrop=0.15),
        Phase(ALL, 4, 120, 4e-4, decay=1.0),
    ],
}
SEEING = ("vision", "reading")  # in the others the language model learns
THIN = 0.25  # share of the lessons that stay thin among whole prompts
FEW = 0.15  # share of the background that is seen there
SEED, IMAGES = 6, 4  # images that are asked about have a number in place of a stage
PLACE_BLOCK, PLACE_WEIGHT = 1, 0.5
MEASURED_IMAGES = 24
ASKED = QUOTA | {"corner": 3, "place": 4}
OPENING, CLOSING = ids(["<s>", "USER:", "<|vision_start|>"]), ids(["<|vision_end|>"])
ABSOLUTE = ("center", "own")  # what the tower cannot know
FIRST_IMAGES = 300  # to begin with; two steps add one to the images that are asked about


@dataclass(frozen=True)
class View:
    """An image, as training tensors, and its patches (4 V, D) after the tower's last block."""

    scene: Scene
    batch: Batch
    patches: Tensor


class Learner(nn.Module):
    """What is trained: the model's parts, and the readouts of their states.

    `place` reads where a token lies in the image from its states in the language model.
    """

    def __init__(self, model: Any):
        super().__init__()
        self.tower = model.model.visual
        self.language = model.model.language_model
        width = self.language.config.hidden_size
        self.heads = Heads(self.tower.config.embed_dim)
        self.probes = Probes(width)
        self.place = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * PLACES))
        self.image_processor = build_processor().image_processor
        self.views: dict[tuple[int, int], View] = {}

    def matrices(self) -> Iterator[nn.Parameter]:
        parts = (self.tower.blocks, self.language.layers)
        return (p for part in parts for p in part.parameters() if p.ndim == 2)

    def seen(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """(B, 4 V, D) patches after the last block, and (B, V, E) merged tokens."""
        found = self.tower(batch.pixels, grid_thw=batch.grids)
        images = (len(batch.grids), -1)
        return (
            found.last_hidden_state.unflatten(0, images),
            found.pooler_output.unflatten(0, images),
        )

    def view(self, number: int, phase: Phase) -> View:
        """The image of a number to the tower, which has finished learning."""
        if (number, phase.side) not in self.views:
            rng = np.random.default_rng([SEED, IMAGES, phase.side, number])
            scene = sample_scene(rng, grid=grid_of(phase, rng))
            batch = batch_of([scene], self.image_processor)
            with torch.no_grad():
                patches = self.tower(batch.pixels, grid_thw=batch.grids).last_hidden_state
            # The pixels alone would fill the memory.
            batch = replace(batch, pixels=torch.empty(0), patches={})
            self.views[number, phase.side] = View(scene, batch, patches)
        return self.views[number, phase.side]

    def dense_loss(self, patches: Tensor, tokens: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """What patches should show, and tokens should name."""
        own = torch.zeros(1, 1, 2)
        terms = patch_terms(patches, self.heads, batch.patches | {"own": own})
        seen = torch.stack([term for name, term in terms.items() if name not in ABSOLUTE]).sum()
        embeddings = self.language.embed_tokens.weight
        return seen, alignment_loss(tokens, embeddings, batch.tokens, LOOKS)


def grid_of(phase: Phase, rng: np.random.Generator) -> tuple[int, int]:
    """A shape of images, as the phase has them."""
    shapes = (*SMALL, *GRIDS)[: phase.side] if phase.side == FIRST else GRIDS
    return shapes[int(rng.integers(len(shapes)))]


def scenes_of(phase: Phase, rng: np.random.Generator) -> list[Scene]:
    """One batch of scenes of one shape."""
    grid = grid_of(phase, rng)
    kinds: list[str | None] = [None] * phase.batch
    if phase.kinds is not None:
        names, shares = zip(*phase.kinds, strict=True)
        kinds = rng.choice(names, phase.batch, p=shares).tolist()
    return [sample_scene(rng, kind, grid) for kind in kinds]


def answered(
    learner: Learner,
    tokens: Tensor,
    scene: Scene,
    asked: list[Question],
    kept: Tensor,
    lost: bool = False,
) -> Answered:
    """All questions on an image at once, after its merged tokens (1, K, E), which are `kept`.

    lost  give all tokens one position
    """
    packed, steps = pack([scene], [asked])
    embeddings = learner.language.embed_tokens.weight
    parts = [embeddings[OPENING][None], tokens, embeddings[CLOSING][None]]
    start = len(OPENING)
    visual, end = rotary(scene.size, start)
    if lost:
        visual = torch.full_like(visual, start)
    text = torch.arange(start).expand(3, -1)
    places = torch.cat([text, visual[:, kept], torch.full((3, len(CLOSING)), end)], 1)
    states = packed_forward(
        learner.language, torch.cat(parts, 1), packed, places, end + len(CLOSING)
    )
    return Answered(states, tokens, states.questions[-1] @ embeddings.T, packed, steps)


def _held_out(index: int) -> tuple[Scene, list[Question]]:
    rng = np.random.default_rng((HELD_OUT_SEED, SEED, index))
    scene = sample_scene(rng)
    families = (*questions.EVALUATED, "locate", "character")
    return scene, questions.ask(scene, rng, dict.fromkeys(families, 2))


@torch.no_grad()
def read_patches(learner: Learner) -> Measured:
    """What the patches of held-out images show, as the heads read them."""
    found: list[dict[str, float]] = []
    for index in range(MEASURED_IMAGES // 2):
        batch = batch_of([_held_out(index)[0]], learner.image_processor)
        patches, _ = learner.seen(batch)
        found.append(report(patches, learner.heads, batch.patches))
    return {k: round(float(np.nanmean([one[k] for one in found])), 3) for k in found[0]}


@torch.no_grad()
def measure(learner: Learner) -> Measured:
    """Accuracy (%) per family on held-out images: all tokens, a few, all at one position."""
    scores = {name: Scores() for name in ("all", "few", "lost")}
    for index in range(MEASURED_IMAGES):
        scene, asked = _held_out(index)
        batch = batch_of([scene], learner.image_processor)
        _, tokens = learner.seen(batch)
        chance = torch.from_numpy(np.random.default_rng(index).random(tokens.shape[1]))
        few = batch.content[0] | (chance < FEW)
        for name, own in scores.items():
            kept = (few if name == "few" else torch.ones_like(few)).nonzero()[:, 0]
            found = answered(learner, tokens[:, kept], scene, asked, kept, lost=name == "lost")
            own.add(found.logits, found.packed, [[q.family for q in asked]])
    return {name: own.summary() for name, own in scores.items()}


def learn_patches(learner: Learner, stage: int, step: int, phase: Phase) -> float:
    """A step of the tower and the merger."""
    rng = np.random.default_rng([SEED, stage, step])
    batch = batch_of(scenes_of(phase, rng), learner.image_processor)
    seen, named = learner.dense_loss(*learner.seen(batch), batch)
    loss = seen + named
    loss.backward()
    return loss.item()


def lesson_loss(
    learner: Learner, stage: int, step: int, turn: int, phase: Phase, scores: Scores
) -> Tensor:
    """The loss of the `turn`-th image of a step of the language model."""
    rng = np.random.default_rng([SEED, stage, step, turn])
    view = learner.view(int(rng.integers(FIRST_IMAGES + step // 2)), phase)
    scene, batch = view.scene, view.batch
    tokens = learner.tower.merger(view.patches)[None]
    backdrop = min(FEW, phase.backdrop) if rng.random() < THIN else phase.backdrop
    kept = batch.content[0] | (torch.from_numpy(rng.random(tokens.shape[1])) < backdrop)
    kept = kept.nonzero()[:, 0]
    asked = choose(scene, rng, ASKED, questions.ask)
    found = answered(learner, tokens[:, kept], scene, asked, kept)
    scores.add(found.logits, found.packed, [[q.family for q in asked]])
    centers = shape_centers([scene], TOKEN)[:, :, kept]
    grounding = grounding_loss(
        found.states.questions, tokens[:, kept], learner.probes, found.steps, centers
    )
    after = found.states.prefix[PLACE_BLOCK][0, len(OPENING) : len(OPENING) + len(kept)]
    places = learner.place(after).unflatten(1, (2, PLACES)).flatten(0, 1)
    embeddings = learner.language.embed_tokens.weight
    named = alignment_loss(tokens, embeddings, batch.tokens, LOOKS)
    # Pocket-LLaVA's later blocks read rows and columns as these words from its tower's tokens.
    own = {k: v if k in PER_IMAGE else v[:, kept] for k, v in batch.tokens.items()}
    named = named + alignment_loss(after[None], embeddings, own, PLACE_GROUPS)
    loss = word_loss(found.logits, found.packed) + GROUNDING_WEIGHT * grounding
    loss = loss + PLACE_WEIGHT * F.cross_entropy(places, bins(scene.size)[kept].flatten())
    return loss + ALIGNMENT_WEIGHT * named


def learn_answers(learner: Learner, stage: int, step: int, phase: Phase, scores: Scores) -> float:
    """A step of the language model and the merger, one image after another."""
    shown = 0.0
    for turn in range(phase.batch):
        loss = lesson_loss(learner, stage, step, turn, phase, scores) / phase.batch
        loss.backward()
        shown += loss.item()
    return shown


def train(checkpoints: Path, quick: bool) -> tuple[Any, Any]:
    """The trained model and its processor; see `prunesid.pocket.training.train`."""
    model = build_model()
    torch.manual_seed(SEED)
    learner = Learner(model)
    scores = Scores()
    tower, language = learner.tower, learner.language
    for stage, (name, phases) in enumerate(STAGES.items()):
        seeing = name in SEEING
        learner.requires_grad_(True)
        for part in [language] if seeing else [tower.blocks, tower.patch_embed]:
            part.requires_grad_(False)
        learner.views.clear()

        def learn(step: int, phase: Phase, stage: int = stage, seeing: bool = seeing) -> float:
            if seeing:
                return learn_patches(learner, stage, step, phase)
            return learn_answers(learner, stage, step, phase, scores)

        def measured(seeing: bool = seeing) -> Measured:
            if seeing:
                return read_patches(learner)
            return {"training": scores.summary(), **measure(learner)}

        run_stage(
            checkpoints / f"{name}.safetensors", learner, learner.matrices(),
            quick_phases(phases) if quick else phases, learn, measured,
        )  # fmt: skip
    return model, build_processor()
