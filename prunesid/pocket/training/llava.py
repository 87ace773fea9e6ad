"""The recipe of Pocket-LLaVA, from scratch: one to three hours on 2 CPU cores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prunesid.pocket.model import build_model, build_processor
from prunesid.pocket.training.language import train_language
from prunesid.pocket.training.schedule import READING, Phase, quick_phases
from prunesid.pocket.training.vision import train_tower

VISION = [
    Phase(12, 24, 450, 2e-3),
    Phase(12, 24, 400, 2e-3, READING),
    Phase(24, 8, 650, 1.5e-3, READING, decay=0.6),
    Phase(24, 8, 600, 1.5e-3, READING, decay=0.6),
]
LANGUAGE = [
    Phase(12, 8, 900, 2e-3, READING),
    Phase(24, 4, 3300, 1.5e-3, READING, decay=0.6),
]


def train(checkpoints: Path, quick: bool) -> tuple[Any, Any]:
    """The trained model and its processor; see `prunesid.pocket.training.train`."""
    vision, language = map(quick_phases, (VISION, LANGUAGE)) if quick else (VISION, LANGUAGE)
    model = build_model(seed=0)
    train_tower(model.model.vision_tower, vision, checkpoints)
    train_language(model, language, checkpoints)
    return model, build_processor()
