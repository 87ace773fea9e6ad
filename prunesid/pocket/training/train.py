"""Train Pocket-LLaVA from scratch.

    python -m prunesid.pocket.training.train --out DIR
    python -m prunesid.pocket.training.train --out DIR --quick

The first takes one to three hours on 2 CPU cores and resumes after a kill. The second takes a
minute; its model learns little. `make pocket` runs the first and then measures the model card's
numbers. All results follow from the seeds below, but bit for bit only on the same machine with the
same number of threads. Matrices are multiplied in bf16 and summed in float32 if the CPU has
instructions for that.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from prunesid.pocket.model import build_model, build_processor, save
from prunesid.pocket.training.language import train_language
from prunesid.pocket.training.schedule import READING, Phase
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


def _quick(phases: list[Phase]) -> list[Phase]:
    return [replace(p, batch=2, steps=3) for p in phases]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the finished model")
    parser.add_argument("--checkpoints", type=Path, help="default: OUT/checkpoints")
    parser.add_argument("--quick", action="store_true", help="three tiny steps per phase")
    options = parser.parse_args(arguments)
    checkpoints = options.checkpoints or options.out / "checkpoints"
    vision, language = (_quick(VISION), _quick(LANGUAGE)) if options.quick else (VISION, LANGUAGE)
    started = time.monotonic()
    torch.set_float32_matmul_precision("medium")
    model = build_model(seed=0)
    train_tower(model.model.vision_tower, vision, checkpoints)
    train_language(model, language, checkpoints)
    save(model, build_processor(), options.out)
    print(f"{options.out}: trained in {time.monotonic() - started:.0f} s (this call)")


if __name__ == "__main__":
    main()
