"""Pocket-Mini-Gemini: Pocket-LLaVA's tower and language model, and a second, sharper tower."""

from pathlib import Path

WEIGHTS = Path(__file__).resolve().parent / "weights"
