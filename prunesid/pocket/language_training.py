"""Stage 2: projector and language model learn to answer, the vision tower stays as it is."""

from __future__ import annotations

import copy
import json
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from prunesid.pocket import optimization
from prunesid.pocket.batches import scene_batch
from prunesid.pocket.checkpoint import load_checkpoint, save_checkpoint
from prunesid.pocket.decoder import Packed, packed_forward
from prunesid.pocket.labels import KINDS
from prunesid.pocket.questions import Question, ask
from prunesid.pocket.tower import tower_forward
from prunesid.pocket.vision_training import CHECKPOINT_STEPS, Phase
from prunesid.pocket.vocabulary import (
    BACKGROUNDS,
    BINS,
    CHARACTERS,
    COLOR_NAMES,
    COLUMNS,
    ROWS,
    words,
)

QUOTA = {
    "existence": 4, "attribute": 3, "spatial": 4, "side": 3, "count": 5, "code": 1,
    "character": 3, "background": 1, "multiple_choice": 4, "judge": 8, "locate": 4, "fact": 3,
}  # fmt: skip
# The longest answers and the hardest counting get more weight, as their share of tokens is small.
ANSWER_WEIGHT = defaultdict(lambda: 1.0, code=4.0, count=2.0, character=2.0)
END_WEIGHT, QUESTION_WEIGHT = 0.3, 0.1
ALIGNMENT_STEPS, ALIGNMENT_WEIGHT = 60, 0.3

_ID = {word: number for number, word in enumerate(words())}


def _ids(names: Sequence[str]) -> Tensor:
    return torch.tensor([_ID[name] for name in names])


def pack(questions: Sequence[Sequence[Question]]) -> tuple[Packed, list[list[str]]]:
    """Token ids and weights of every image's questions, and their families."""
    rows: list[dict[str, list]] = []
    for asked in questions:
        row: dict[str, list] = {k: [] for k in Packed.__dataclass_fields__}
        for number, question in enumerate(asked):
            prompt = [*question.prompt.split(), "ASSISTANT:"]
            answer = question.answer.split()
            tokens = [*prompt, *answer, "</s>"]
            row["ids"] += [_ID[t] for t in tokens]
            row["segment"] += [number] * len(tokens)
            row["place"] += range(len(tokens))
            # A question's first token has no predecessor inside the question.
            row["weight"] += [0.0] + [QUESTION_WEIGHT] * (len(prompt) - 2) + [0.0]
            row["weight"] += [ANSWER_WEIGHT[question.family]] * len(answer) + [END_WEIGHT]
            row["answer"] += [False] * len(prompt) + [True] * len(answer) + [False]
        rows.append(row)
    length = -(-max(len(r["ids"]) for r in rows) // 16) * 16
    filler = {"ids": _ID["<pad>"], "segment": -1, "place": 0, "weight": 0.0, "answer": False}
    packed = {
        name: torch.tensor([r[name] + [fill] * (length - len(r[name])) for r in rows])
        for name, fill in filler.items()
    }
    return Packed(**packed), [[q.family for q in asked] for asked in questions]


def batch_of(
    phase: Phase, seed: int, step: int
) -> tuple[dict[str, Tensor], Packed, list[list[str]]]:
    """The `step`-th batch of a phase: a pure function of its arguments."""
    rng = np.random.default_rng([seed, phase.side, step])
    scenes = phase.scenes(rng)
    packed, families = pack([ask(scene, rng, QUOTA) for scene in scenes])
    return scene_batch(scenes), packed, families


_KIND_WORDS = _ids([k.removeprefix("arrow_") for k in KINDS[1:]])
_GROUPS = {
    "kind": _KIND_WORDS, "color": _ids(COLOR_NAMES), "character": _ids(CHARACTERS),
    "style": _ids(BACKGROUNDS), "row": _ids(ROWS), "column": _ids(COLUMNS),
}  # fmt: skip


def alignment_loss(tokens: Tensor, embeddings: Tensor, batch: dict[str, Tensor]) -> Tensor:
    """Projected patches (B, P, D) should be near the embeddings of the words that name them.

    Row and column are those of the center of the patch's object, so that any patch of an object
    tells where it is; a background patch names its own.
    """
    backdrop = batch["kind"] == 0
    place = (batch["center"] * BINS).long().clamp(max=BINS - 1)
    target = {
        "kind": batch["kind"] - 1, "color": batch["color"] - 1,
        "character": batch["character"] - 1,
        "style": torch.where(backdrop, batch["style"][:, None], -1),
        "row": place[..., 1], "column": place[..., 0],
    }  # fmt: skip
    total = tokens.new_zeros(())
    for name, ids in _GROUPS.items():
        wanted = target[name]
        weight = batch["weight"] * (wanted >= 0)
        logits = (4 * tokens @ embeddings[ids].to(tokens.dtype).T).float()
        loss = F.cross_entropy(
            logits.flatten(0, 1), wanted.flatten(), ignore_index=-1, reduction="none"
        )
        total = total + (loss * weight.flatten()).sum() / weight.sum().clamp_min(1e-6)
    return total / len(_GROUPS)


class _Scores:
    """Running share of right answers per family, over the last few hundred questions of each."""

    def __init__(self) -> None:
        self.recent: dict[str, deque[bool]] = defaultdict(lambda: deque(maxlen=400))

    def add(self, predicted: Tensor, packed: Packed, families: list[list[str]]) -> None:
        # predicted[:, i] is the guess for token i; a question counts if all its answer is right.
        wrong = (predicted != packed.ids) & packed.answer
        for image, names in enumerate(families):
            failed = set(packed.segment[image][wrong[image]].tolist())
            for number, name in enumerate(names):
                self.recent[name].append(number not in failed)

    def summary(self) -> dict[str, float]:
        return {k: round(100 * sum(v) / len(v), 1) for k, v in sorted(self.recent.items()) if v}


def _matrices(model: Any) -> Iterator[nn.Parameter]:
    return (p for p in model.model.language_model.layers.parameters() if p.ndim == 2)


def train_language(
    model: Any, phases: list[Phase], folder: Path, seed: int = 2, decay: float = 0.3
) -> None:
    """Train projector and language model in place. Resumes from `folder`; a kill costs at most
    CHECKPOINT_STEPS steps. The learning rate is each phase's own and falls to zero over the last `decay` of all
    steps. `folder/language.jsonl` records the training accuracy per family.
    """
    model.requires_grad_(False)
    projector, language = model.model.multi_modal_projector, model.model.language_model
    both = nn.ModuleDict({"projector": projector, "language": language})
    both.requires_grad_(True)
    tower = copy.deepcopy(model.model.vision_tower).bfloat16().requires_grad_(False)
    tower.encoder.layers = tower.encoder.layers[:-1]  # the features are the last but one block's
    used = optimization.optimizers(both, _matrices(model), phases[0].rate)
    path, done = folder / "language.safetensors", 0
    if path.exists():
        done = load_checkpoint(path, both, used)
    total = sum(p.steps for p in phases)
    opening = _ids(["<s>", "USER:"])
    scores = _Scores()
    bar = tqdm(total=total, initial=done, desc="language model", unit="step", mininterval=5)
    first = 0
    for phase in phases:
        for step in range(max(done, first), first + phase.steps):
            optimization.apply_rate(
                used, phase.rate * optimization.rate_factor(step, total, 60, decay)
            )
            batch, packed, families = batch_of(phase, seed, step)
            with torch.no_grad():
                pixels = batch["pixels"].bfloat16()
                features = tower_forward(tower, pixels, batch["positions"])[-1][:, 1:]
            with torch.autocast("cpu", torch.bfloat16):
                tokens = projector(features)
                embeddings = language.embed_tokens.weight
                loss = alignment_loss(tokens, embeddings, batch)
                if step >= ALIGNMENT_STEPS:
                    head = embeddings[opening].expand(phase.batch, -1, -1)
                    hidden = packed_forward(language, torch.cat([head, tokens], 1), packed)
                    logits = (hidden[:, :-1] @ embeddings.T).float()
                    word_loss = F.cross_entropy(
                        logits.flatten(0, 1), packed.ids[:, 1:].flatten(), reduction="none"
                    )
                    weight = packed.weight[:, 1:].flatten()
                    loss = ALIGNMENT_WEIGHT * loss + (word_loss * weight).sum() / weight.sum()
                    guess = F.pad(logits.argmax(-1), (1, 0))
                    scores.add(guess, packed, families)
            loss.backward()
            nn.utils.clip_grad_norm_(both.parameters(), 1.0)
            for optimizer in used:
                optimizer.step()
                optimizer.zero_grad()
            bar.set_postfix(side=phase.side, loss=f"{loss.item():.3f}", refresh=False)
            bar.update()
            if (step + 1) % CHECKPOINT_STEPS == 0 or step + 1 == total:
                save_checkpoint(path, both, used, step + 1)
                with open(folder / "language.jsonl", "a") as log:
                    print(json.dumps({"step": step + 1, **scores.summary()}), file=log)
        first += phase.steps
    bar.close()
