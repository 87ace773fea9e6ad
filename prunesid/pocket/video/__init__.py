"""Pocket-Video-LLaVA: clips of moving shapes, after Pocket-LLaVA's tower and language model."""

from pathlib import Path

WEIGHTS = Path(__file__).resolve().parent / "weights"
