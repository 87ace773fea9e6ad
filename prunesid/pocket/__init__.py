"""Pocket-LLaVA: the embedded vision-language model, its scenes, its training and its benchmarks.

Full training: `python -m prunesid.pocket.training.train --out DIR`; a smoke run: add `--quick`.
"""

from pathlib import Path

WEIGHTS = Path(__file__).resolve().parent / "weights"
