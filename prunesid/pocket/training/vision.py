"""Stage 1 of training: the vision tower learns what every patch shows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prunesid.pocket.training.batches import scene_batch
from prunesid.pocket.training.labels import KINDS, PRESENCE, ROLES
from prunesid.pocket.training.loop import run_stage
from prunesid.pocket.training.schedule import Phase
from prunesid.pocket.training.tower import tower_forward
from prunesid.pocket.vocabulary import BACKGROUNDS, CHARACTERS, COLOR_NAMES

MASK_BLOCK = 3
TARGET_REDUNDANCY = 0.22


class Heads(nn.Module):
    """Linear readouts of the tower, used in training only."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.kind = nn.Linear(width, len(KINDS))
        self.color = nn.Linear(width, 1 + len(COLOR_NAMES))
        self.character = nn.Linear(width, 1 + len(CHARACTERS))
        self.role = nn.Linear(width, 1 + len(ROLES))
        # offset 2, center 2, own position 2, magnitude 1
        self.geometry = nn.Linear(width, 7)
        self.holds_center = nn.Linear(width, 1)
        self.style = nn.Linear(width, len(BACKGROUNDS))
        self.mask_norm = nn.LayerNorm(width)
        self.mask = nn.Linear(width, 49)
        self.presence_norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(2)])
        self.presence = nn.ModuleList([nn.Linear(width, PRESENCE) for _ in range(2)])


def batch_of(phase: Phase, seed: int, step: int) -> dict[str, Tensor]:
    """The `step`-th batch of a phase: a pure function of its arguments."""
    rng = np.random.default_rng([seed, phase.side, step])
    return scene_batch(phase.scenes(rng))


def _weighted(loss: Tensor, weight: Tensor) -> Tensor:
    return (loss * weight).sum() / weight.sum()


def _classify(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    loss = F.cross_entropy(logits.float().flatten(0, 1), target.flatten(), reduction="none")
    return _weighted(loss, weight.flatten())


def redundancy(patches: Tensor) -> Tensor:
    """Mean squared norm of the mean unit token, (B, T, D) -> scalar; equation 4 up to 1 / T."""
    return F.normalize(patches.float(), dim=-1).mean(1).square().sum(-1).mean()


def patch_terms(patches: Tensor, heads: Heads, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The terms of the loss that patches (B, P, D) have, weighted.

    Patches of weight 0 show no part of the image (padding).
    """
    x = heads.norm(patches)
    weight, foreground = batch["weight"], (batch["kind"] > 0).float()
    # An empty background patch says little, so foreground counts four times as much.
    kind_weight = weight * (0.25 + 0.75 * foreground)
    lettered = weight * (batch["kind"] == KINDS.index("character"))
    geometry = heads.geometry(x).float()
    offset = F.smooth_l1_loss(geometry[..., :2], batch["offset"], reduction="none").sum(-1)
    center = (geometry[..., 2:4] - batch["center"]).square().sum(-1)
    own = (geometry[..., 4:6] - batch["own"]).square().sum(-1)
    magnitude = (geometry[..., 6] - batch["magnitude"]).square()
    charted = weight * (batch["magnitude"] > 0)
    holds = F.binary_cross_entropy_with_logits(
        heads.holds_center(x)[..., 0].float(),
        batch["holds_center"],
        reduction="none",
        pos_weight=torch.tensor(4.0),
    )
    style = heads.style(x).float().flatten(0, 1)
    styles = batch["style"][:, None].expand(-1, x.shape[1]).flatten()
    style_loss = F.cross_entropy(style, styles, reduction="none")
    return {
        "kind": _classify(heads.kind(x), batch["kind"], kind_weight),
        "color": _classify(heads.color(x), batch["color"], kind_weight),
        "character": _classify(heads.character(x), batch["character"], lettered + 1e-6),
        "role": _classify(heads.role(x), batch["role"], weight * foreground + 1e-6),
        "offset": 0.5 * _weighted(offset, weight * foreground + 1e-6),
        "center": 4 * _weighted(center, weight * foreground + 1e-6),
        "own": 4 * own.mean(),
        "magnitude": 2 * _weighted(magnitude, charted + 1e-6),
        "holds": _weighted(holds, weight * (0.1 + foreground)),
        "style": 0.3 * _weighted(style_loss, (weight > 0).float().flatten()),
        "redundancy": 4 * (redundancy(patches) - TARGET_REDUNDANCY).square(),
    }


def loss_of(outputs: list[Tensor], heads: Heads, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """All terms of the loss, weighted."""
    terms = patch_terms(outputs[-2][:, 1:], heads, batch)
    mask = heads.mask(heads.mask_norm(outputs[MASK_BLOCK][:, 1:])).float()
    terms["mask"] = 0.5 * F.binary_cross_entropy_with_logits(mask, batch["foreground"])
    for name, norm, head, layer in zip(
        ("presence", "presence_last"), heads.presence_norms, heads.presence, (-2, -1), strict=True
    ):
        logits = head(norm(outputs[layer][:, 0])).float()
        terms[name] = 4 * F.binary_cross_entropy_with_logits(logits, batch["presence"])
    return terms


def _matrices(tower: Any) -> Iterator[nn.Parameter]:
    return (p for p in tower.encoder.layers.parameters() if p.ndim == 2)


def report(patches: Tensor, heads: Heads, batch: dict[str, Tensor]) -> dict[str, float]:
    """Shares of the patches (B, P, D) that the heads read right, and their redundancy."""
    with torch.no_grad():
        x = heads.norm(patches)
        shown = batch["kind"] > 0
        right = heads.kind(x).argmax(-1) == batch["kind"]
        colored = heads.color(x).argmax(-1) == batch["color"]
        lettered = batch["character"] > 0
        read = heads.character(x).argmax(-1) == batch["character"]
        placed = batch["role"] > 0
        cast = heads.role(x).argmax(-1) == batch["role"]
        return {
            "kind": right[shown].float().mean().item(),
            "color": colored[shown].float().mean().item(),
            "char": read[lettered].float().mean().item(),
            "role": cast[placed].float().mean().item(),
            "rho": redundancy(patches).item(),
        }


def train_tower(tower: Any, phases: list[Phase], folder: Path, seed: int = 1) -> None:
    """Train `tower` in place, resuming from `folder`."""
    heads = Heads(tower.config.hidden_size)
    both = nn.ModuleDict({"tower": tower, "heads": heads})
    last: dict[str, float] = {}

    def learn(step: int, phase: Phase) -> float:
        batch = batch_of(phase, seed, step)
        outputs = tower_forward(tower, batch["pixels"], batch["positions"])
        loss = torch.stack(list(loss_of(outputs, heads, batch).values())).sum()
        loss.backward()
        if step % 20 == 0:
            last.update(report(outputs[-2][:, 1:], heads, batch))
        return loss.item()

    path = folder / "vision.safetensors"
    run_stage(path, both, _matrices(tower), phases, learn, lambda: {"training": last}, clip=2.0)
