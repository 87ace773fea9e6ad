"""Pocket-LLaVA: the embedded vision-language model, its scenes, its training and its benchmarks.

Train with `python -m prunesid.pocket.training.train --out DIR`; `--quick` makes it a smoke run.
"""

from pathlib import Path

WEIGHTS = Path(__file__).resolve().parent / "weights"
# The embedded models by the names that a study gives them, and their folders.
EMBEDDED = {
    "pocket": WEIGHTS,
    "pocket-next": WEIGHTS.parent / "next" / "weights",
    "pocket-gemini": WEIGHTS.parent / "gemini" / "weights",
    "pocket-video": WEIGHTS.parent / "video" / "weights",
    "pocket-qwen": WEIGHTS.parent / "qwen" / "weights",
}
