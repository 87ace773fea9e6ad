"""The recipe of Pocket-Mini-Gemini from Pocket-LLaVA, whose tower stays as it is.

1. The ConvNeXt, the mining and the projector learn what every patch shows, on windows of 12 x 12
   patches, which hold as many things as a whole image.
2. The language model learns to answer, and they go on: first on windows, then on whole images.
   Most of an image's 576 tokens show background, so it first sees one in seven of those, and whole
   prompts last. The tokens that it sees follow each other without gaps, as pruned ones do.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from prunesid.families.inputs.conversations import CONVERSATIONS, VICUNA_V1, pieces
from prunesid.families.mini_gemini import MiniGeminiConfig, MiniGeminiProcessor
from prunesid.families.mini_gemini.processing import MARK
from prunesid.pocket.benchmarks import HELD_OUT_SEED
from prunesid.pocket.gemini.model import build_model, build_processor
from prunesid.pocket.gemini.views import PATCHES, batch_of, halved, window
from prunesid.pocket.model import GRID
from prunesid.pocket.next.scenes import sample_scene
from prunesid.pocket.questions import EVALUATED, Question, ask
from prunesid.pocket.scenes import Scene
from prunesid.pocket.training.alignment import alignment_loss
from prunesid.pocket.training.decoder import Answered, packed_forward
from prunesid.pocket.training.grounding import Probes, grounding_loss, shape_centers
from prunesid.pocket.training.language import (
    ALIGNMENT_WEIGHT,
    GROUNDING_WEIGHT,
    Scores,
    word_loss,
)
from prunesid.pocket.training.loop import Measured, run_stage
from prunesid.pocket.training.packing import choose, pack
from prunesid.pocket.training.schedule import Phase, quick_phases
from prunesid.pocket.training.tower import tower_forward
from prunesid.pocket.training.vision import Heads, patch_terms, report

MINING = [Phase(12, 24, 400, 2e-3), Phase(12, 8, 1400, 1.5e-3, decay=0.7)]
LANGUAGE = [
    Phase(12, 4, 600, 1.2e-3),
    Phase(24, 3, 1100, 1.2e-3, decay=0.5, backdrop=0.15),
    Phase(24, 3, 450, 8e-4, decay=1.0),
]
THIN = 0.25  # share of the lessons that stay thin among whole prompts
FEW = 0.15  # share of the background that is seen there
SEED = 4
DENSE_WEIGHT = 0.2  # of the patches' loss in the second stage
MEASURED_IMAGES = 30


class Learner(nn.Module):
    """What is trained: parts of the model, and the readouts of its hidden states."""

    def __init__(self, model: Any):
        super().__init__()
        self.trunk = model.model.vision_tower_aux
        self.mining = model.model.mining
        self.projector = model.model.multi_modal_projector
        self.language = model.model.language_model
        self.heads = Heads(model.config.vision_config.hidden_size)
        self.probes = Probes(self.language.config.hidden_size)
        # A tuple keeps the frozen tower out of the parameters.
        tower = copy.deepcopy(model.model.vision_tower).requires_grad_(False)
        tower.encoder.layers = tower.encoder.layers[:-1]  # features are from the last block but one
        self.frozen = (tower,)
        self.processors = processors_of(model.config)
        prompt = CONVERSATIONS[VICUNA_V1].text(MARK)
        self.opening = torch.tensor(pieces(self.processors[GRID].tokenizer, prompt, [MARK])[0][0])

    def matrices(self) -> Iterator[nn.Parameter]:
        parts = (self.trunk, self.mining, self.language.layers)
        return (p for part in parts for p in part.parameters() if p.ndim == 2)

    def patches(self, batch: dict[str, Tensor], sharp: bool = True) -> Tensor:
        """(B, P, D) what the projector gets; without `sharp`, nothing is mined."""
        pixels = batch["pixel_values"]
        with torch.no_grad():
            patches = tower_forward(self.frozen[0], pixels, batch["positions"])[-1][:, 1:]
        if not sharp:
            return patches
        return patches + self.mining(patches, self.trunk(batch["pixel_values_aux"]))

    def patch_loss(self, patches: Tensor, batch: dict[str, Tensor]) -> Tensor:
        return torch.stack(list(patch_terms(patches, self.heads, batch).values())).sum()


def processors_of(config: MiniGeminiConfig) -> dict[int, MiniGeminiProcessor]:
    """Side of a phase's patch grid -> the processor of its images: windows and whole ones."""
    half = copy.deepcopy(config)
    half.image_size_aux //= 2
    half.vision_config.image_size //= 2
    return {own.grid: build_processor(own) for own in (half, config)}


def scene_of(phase: Phase, rng: np.random.Generator) -> Scene:
    """A window or a whole image, as the phase has them."""
    return window(rng) if phase.side < GRID else sample_scene(rng)


def answered(learner: Learner, tokens: Tensor, scene: Scene, questions: list[Question]) -> Answered:
    """All questions on an image at once, after its projected tokens (1, K, E)."""
    packed, steps = pack([halved(scene)], [questions])
    embeddings = learner.language.embed_tokens.weight
    prefix = torch.cat([embeddings[learner.opening][None], tokens], 1)
    states = packed_forward(learner.language, prefix, packed)
    return Answered(states, tokens, states.questions[-1] @ embeddings.T, packed, steps)


def _held_out(index: int) -> tuple[Scene, list[Question]]:
    rng = np.random.default_rng((HELD_OUT_SEED, SEED, index))
    scene = sample_scene(rng)
    return scene, ask(scene, rng, dict.fromkeys((*EVALUATED, "locate", "character"), 2))


@torch.no_grad()
def read_patches(learner: Learner) -> Measured:
    """What the patches of held-out images show, as the heads read them."""
    batch = batch_of(
        [_held_out(i)[0] for i in range(MEASURED_IMAGES // 2)], learner.processors[GRID]
    )
    return {
        name: {
            k: round(v, 3) for k, v in report(
                learner.patches(batch, sharp), learner.heads, batch
            ).items()
        }
        for name, sharp in (("sharp", True), ("silenced", False))
    }  # fmt: skip


@torch.no_grad()
def measure(learner: Learner) -> Measured:
    """Accuracy (%) per family on held-out images: with all tokens, with a few, nothing mined."""
    scores = {name: Scores() for name in ("all", "few", "silenced")}
    for index in range(MEASURED_IMAGES):
        scene, asked = _held_out(index)
        batch = batch_of([scene], learner.processors[GRID])
        chance = torch.from_numpy(np.random.default_rng(index).random(PATCHES))
        few = batch["content"][0] | (chance < FEW)
        for name, own in scores.items():
            tokens = learner.projector(learner.patches(batch, sharp=name != "silenced"))
            found = answered(learner, tokens[:, few] if name == "few" else tokens, scene, asked)
            own.add(found.logits, found.packed, [[q.family for q in asked]])
    return {name: own.summary() for name, own in scores.items()}


def learn_patches(learner: Learner, step: int, phase: Phase) -> float:
    """A step of the first stage."""
    rng = np.random.default_rng([SEED, 0, step])
    batch = batch_of(
        [scene_of(phase, rng) for _ in range(phase.batch)], learner.processors[phase.side]
    )
    patches = learner.patches(batch)
    embeddings = learner.language.embed_tokens.weight
    loss = learner.patch_loss(patches, batch)
    loss = loss + alignment_loss(learner.projector(patches), embeddings, batch)
    loss.backward()
    return loss.item()


def learn_answers(learner: Learner, step: int, phase: Phase) -> float:
    """A step of the second stage, one image after another."""
    shown = 0.0
    for turn in range(phase.batch):
        rng = np.random.default_rng([SEED, 1, step, turn])
        scene = scene_of(phase, rng)
        batch = batch_of([scene], learner.processors[phase.side])
        patches = learner.patches(batch)
        tokens = learner.projector(patches)
        backdrop = min(FEW, phase.backdrop) if rng.random() < THIN else phase.backdrop
        seen = batch["content"][0] | (torch.from_numpy(rng.random(tokens.shape[1])) < backdrop)
        found = answered(learner, tokens[:, seen], scene, choose(scene, rng))
        centers = shape_centers([halved(scene)])[:, :, seen]
        grounding = grounding_loss(
            found.states.questions, tokens[:, seen], learner.probes, found.steps, centers
        )
        alignment = alignment_loss(tokens, learner.language.embed_tokens.weight, batch)
        loss = word_loss(found.logits, found.packed) + GROUNDING_WEIGHT * grounding
        loss = loss + ALIGNMENT_WEIGHT * alignment
        loss = loss + DENSE_WEIGHT * learner.patch_loss(patches, batch)
        (loss / phase.batch).backward()
        shown += loss.item() / phase.batch
    return shown


def train(checkpoints: Path, quick: bool) -> tuple[Any, Any]:
    """The trained model and its tokenizer; see `prunesid.pocket.training.train`."""
    mining, language = map(quick_phases, (MINING, LANGUAGE)) if quick else (MINING, LANGUAGE)
    model = build_model()
    torch.manual_seed(SEED)
    learner = Learner(model).requires_grad_(True)
    learner.language.requires_grad_(False)
    run_stage(
        checkpoints / "mining.safetensors", learner, learner.matrices(), mining,
        lambda step, phase: learn_patches(learner, step, phase), lambda: read_patches(learner),
    )  # fmt: skip
    learner.language.requires_grad_(True)
    run_stage(
        checkpoints / "answers.safetensors", learner, learner.matrices(), language,
        lambda step, phase: learn_answers(learner, step, phase), lambda: measure(learner),
    )  # fmt: skip
    return model, learner.processors[GRID].tokenizer
