"""Stage 2 of training: projector and language model learn to answer; the vision tower is frozen."""

from __future__ import annotations

import copy
from collections import defaultdict, deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prunesid.pocket.training.alignment import alignment_loss
from prunesid.pocket.training.decoder import Packed, packed_forward
from prunesid.pocket.training.grounding import Probes, grounding_loss
from prunesid.pocket.training.loop import run_stage
from prunesid.pocket.training.packing import batch_of
from prunesid.pocket.training.schedule import Phase
from prunesid.pocket.training.tower import tower_forward
from prunesid.pocket.vocabulary import ids

ALIGNMENT_STEPS, ALIGNMENT_WEIGHT, GROUNDING_WEIGHT = 60, 0.3, 1.33


class Scores:
    """The running share of right answers per family, over its last few hundred questions."""

    def __init__(self) -> None:
        self.recent: dict[str, deque[bool]] = defaultdict(lambda: deque(maxlen=400))

    def add(self, logits: Tensor, packed: Packed, families: list[list[str]]) -> None:
        """Note the answers that the `logits` (B, L, words) of the next tokens give."""
        predicted = F.pad(logits[:, :-1].argmax(-1), (1, 0))
        # A question counts if its whole answer is right.
        wrong = (predicted != packed.ids) & packed.answer
        for image, names in enumerate(families):
            failed = set(packed.segment[image][wrong[image]].tolist())
            for number, name in enumerate(names):
                self.recent[name].append(number not in failed)

    def summary(self) -> dict[str, float]:
        return {k: round(100 * sum(v) / len(v), 1) for k, v in sorted(self.recent.items()) if v}


def word_loss(logits: Tensor, packed: Packed) -> Tensor:
    """Weighted mean cross-entropy of the `logits` (B, L, words) of the next tokens."""
    loss = F.cross_entropy(
        logits[:, :-1].flatten(0, 1), packed.ids[:, 1:].flatten(), reduction="none"
    )
    weight = packed.weight[:, 1:].flatten()
    return (loss * weight).sum() / weight.sum()


def _matrices(model: Any) -> Iterator[nn.Parameter]:
    return (p for p in model.model.language_model.layers.parameters() if p.ndim == 2)


def train_language(model: Any, phases: list[Phase], folder: Path, seed: int = 2) -> None:
    """Train projector and language model in place, resuming from `folder`.

    `folder/language.jsonl` records the training accuracy per family.
    """
    model.requires_grad_(False)
    projector, language = model.model.multi_modal_projector, model.model.language_model
    torch.manual_seed(seed)
    probes = Probes(language.config.hidden_size)
    both = nn.ModuleDict({"projector": projector, "language": language, "probes": probes})
    both.requires_grad_(True)
    tower = copy.deepcopy(model.model.vision_tower).requires_grad_(False)
    tower.encoder.layers = tower.encoder.layers[:-1]  # features are from the last block but one
    opening = ids(["<s>", "USER:"])
    scores = Scores()

    def learn(step: int, phase: Phase) -> float:
        batch = batch_of(phase, seed, step)
        images, packed = batch.images, batch.packed
        with torch.no_grad():
            features = tower_forward(tower, images["pixels"], images["positions"])[-1][:, 1:]
        tokens = projector(features)
        embeddings = language.embed_tokens.weight
        loss = alignment_loss(tokens, embeddings, images)
        if step >= ALIGNMENT_STEPS:
            head = embeddings[opening].expand(phase.batch, -1, -1)
            states = packed_forward(language, torch.cat([head, tokens], 1), packed).questions
            logits = states[-1] @ embeddings.T
            loss = ALIGNMENT_WEIGHT * loss + word_loss(logits, packed)
            grounding = grounding_loss(states, tokens, probes, batch.steps, batch.centers)
            loss = loss + GROUNDING_WEIGHT * grounding
            scores.add(logits, packed, batch.families)
        loss.backward()
        return loss.item()

    run_stage(
        folder / "language.safetensors", both, _matrices(model), phases, learn,
        lambda: {"training": scores.summary()},
    )  # fmt: skip
