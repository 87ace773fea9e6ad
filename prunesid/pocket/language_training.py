"""Stage 2: projector and language model learn to answer, the vision tower stays as it is."""

from __future__ import annotations

import copy
import json
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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
from prunesid.pocket.grounding import NONE, Probes, Steps, grounding_loss, steps_of
from prunesid.pocket.labels import KINDS
from prunesid.pocket.questions import Question, ask
from prunesid.pocket.scenes import Scene
from prunesid.pocket.tower import tower_forward
from prunesid.pocket.vision_training import CHECKPOINT_STEPS, Phase
from prunesid.pocket.vocabulary import (
    BACKGROUNDS,
    BINS,
    CHARACTERS,
    COLOR_NAMES,
    COLUMNS,
    ORDINALS,
    RANKS,
    ROWS,
    words,
)

QUOTA = {
    "existence": 4, "attribute": 3, "spatial": 6, "side": 3, "count": 6, "code": 1,
    "character": 3, "background": 1, "multiple_choice": 7, "judge": 10, "locate": 3, "fact": 4,
}  # fmt: skip
# Of what the quotas give, as many questions as fit, so that the images of a batch have equally many.
TOKENS = 320
# The longest answers and the hardest counting get more weight, as their share of tokens is small.
ANSWER_WEIGHT = defaultdict(lambda: 1.0, code=4.0, count=2.0, character=2.0)
END_WEIGHT, QUESTION_WEIGHT = 0.3, 0.1
ALIGNMENT_STEPS, ALIGNMENT_WEIGHT, GROUNDING_WEIGHT = 60, 0.3, 1.0

_ID = {word: number for number, word in enumerate(words())}


def _ids(names: Sequence[str]) -> Tensor:
    return torch.tensor([_ID[name] for name in names])


def _tokens(question: Question) -> int:
    return len(question.prompt.split()) + len(question.answer.split()) + 2


def choose(scene: Scene, rng: np.random.Generator) -> list[Question]:
    """Questions about a scene, in random order, of at most TOKENS tokens together."""
    asked = ask(scene, rng, QUOTA)
    asked = [asked[i] for i in rng.permutation(len(asked))]
    total = np.cumsum([_tokens(q) for q in asked])
    return asked[: max(1, int((total <= TOKENS).sum()))]


@dataclass(frozen=True)
class Batch:
    """What one step of training sees.

    images: the fields of `scene_batch`; packed: the questions; steps: the fields of
    `grounding.Steps`, each (B, L); families: of each image's questions.
    """

    images: dict[str, Tensor]
    packed: Packed
    steps: dict[str, Tensor]
    families: list[list[str]]


def pack(
    scenes: Sequence[Scene], questions: Sequence[Sequence[Question]]
) -> tuple[Packed, dict[str, Tensor]]:
    """Token ids and weights of every image's questions, and the steps of their answers."""
    step_names = tuple(Steps.__dataclass_fields__)
    rows: list[dict[str, list]] = []
    for scene, asked in zip(scenes, questions, strict=True):
        row: dict[str, list] = {k: [] for k in (*Packed.__dataclass_fields__, *step_names)}
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
            steps = steps_of(question, scene, len(tokens))
            for name in step_names:
                row[name] += getattr(steps, name)
        rows.append(row)
    length = -(-max(len(r["ids"]) for r in rows) // 16) * 16
    filler = {"ids": _ID["<pad>"], "segment": -1, "place": 0, "weight": 0.0, "answer": False}
    filled = {
        name: torch.tensor([r[name] + [fill] * (length - len(r[name])) for r in rows])
        for name, fill in (filler | dict.fromkeys(step_names, NONE)).items()
    }
    return Packed(**{k: filled[k] for k in filler}), {k: filled[k] for k in step_names}


def batch_of(phase: Phase, seed: int, step: int) -> Batch:
    """The `step`-th batch of a phase: a pure function of its arguments."""
    rng = np.random.default_rng([seed, phase.side, step])
    # Images of one kind allow about equally many questions; less is padding.
    scenes = phase.scenes(rng, alike=True)
    questions = [choose(scene, rng) for scene in scenes]
    packed, steps = pack(scenes, questions)
    families = [[q.family for q in asked] for asked in questions]
    return Batch(scene_batch(scenes), packed, steps, families)


_KIND_WORDS = _ids([k.removeprefix("arrow_") for k in KINDS[1:]])
_GROUPS = {
    "kind": _KIND_WORDS, "color": _ids(COLOR_NAMES), "character": _ids(CHARACTERS),
    "style": _ids(BACKGROUNDS), "row": _ids(ROWS), "column": _ids(COLUMNS),
    "part": _ids([*ORDINALS, *RANKS["bars"], *RANKS["pie"]]),
    "cell_row": _ids(("top", "middle", "bottom")), "cell_column": _ids(("left", "center", "right")),
}  # fmt: skip
_PARTS = len(_GROUPS["part"])


def alignment_loss(tokens: Tensor, embeddings: Tensor, batch: dict[str, Tensor]) -> Tensor:
    """Projected patches (B, P, D) should be near the embeddings of the words that name them.

    Row and column are those of the center of the patch's object, so that any patch of an object
    tells where it is; a background patch names its own. The patch that holds an object's center
    says `object`: objects, not patches, are counted.
    """
    role = batch["role"] - 1
    cell = torch.where(role >= _PARTS, role - _PARTS, -3)  # -3 // 3 and -3 - 0 are below 0
    backdrop = batch["kind"] == 0
    place = (batch["center"] * BINS).long().clamp(max=BINS - 1)
    target = {
        "kind": batch["kind"] - 1, "color": batch["color"] - 1,
        "character": batch["character"] - 1,
        "style": torch.where(backdrop, batch["style"][:, None], -1),
        "row": place[..., 1], "column": place[..., 0],
        "part": torch.where(role < _PARTS, role, -1),
        "cell_row": cell // 3, "cell_column": torch.where(cell < 0, -1, cell % 3),
    }  # fmt: skip
    center = (4 * tokens @ embeddings[_ID["object"]]).flatten()
    total = F.binary_cross_entropy_with_logits(
        center, batch["holds_center"].flatten(), weight=(batch["weight"] * ~backdrop).flatten(),
        reduction="sum",
    ) / (batch["weight"] * ~backdrop).sum().clamp_min(1e-6)  # fmt: skip
    for name, ids in _GROUPS.items():
        wanted = target[name]
        weight = batch["weight"] * (wanted >= 0)
        logits = 4 * tokens @ embeddings[ids].T
        loss = F.cross_entropy(
            logits.flatten(0, 1), wanted.flatten(), ignore_index=-1, reduction="none"
        )
        total = total + (loss * weight.flatten()).sum() / weight.sum().clamp_min(1e-6)
    return total / (1 + len(_GROUPS))


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
    torch.manual_seed(seed)
    probes = Probes(language.config.hidden_size)
    both = nn.ModuleDict({"projector": projector, "language": language, "probes": probes})
    both.requires_grad_(True)
    tower = copy.deepcopy(model.model.vision_tower).requires_grad_(False)
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
            batch = batch_of(phase, seed, step)
            images, packed = batch.images, batch.packed
            with torch.no_grad():
                features = tower_forward(tower, images["pixels"], images["positions"])[-1][:, 1:]
            tokens = projector(features)
            embeddings = language.embed_tokens.weight
            loss = alignment_loss(tokens, embeddings, images)
            if step >= ALIGNMENT_STEPS:
                head = embeddings[opening].expand(phase.batch, -1, -1)
                states = packed_forward(language, torch.cat([head, tokens], 1), packed)
                logits = states[-1][:, :-1] @ embeddings.T
                word_loss = F.cross_entropy(
                    logits.flatten(0, 1), packed.ids[:, 1:].flatten(), reduction="none"
                )
                weight = packed.weight[:, 1:].flatten()
                loss = ALIGNMENT_WEIGHT * loss + (word_loss * weight).sum() / weight.sum()
                loss = loss + GROUNDING_WEIGHT * grounding_loss(states, probes, batch.steps)
                guess = F.pad(logits.argmax(-1), (1, 0))
                scores.add(guess, packed, batch.families)
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
