"""Pocket-LLaVA-NeXT: Pocket-LLaVA's tower and language model, at any resolution up to 672 px."""

from pathlib import Path

WEIGHTS = Path(__file__).resolve().parent / "weights"
