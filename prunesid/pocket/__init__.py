"""Pocket-LLaVA: the embedded vision-language model, its scenes, its training and its benchmarks.

Train with `python -m prunesid.pocket.training.train --out DIR`; `--quick` makes it a smoke run.
"""
