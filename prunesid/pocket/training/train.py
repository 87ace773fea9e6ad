"""Train an embedded model.

    python -m prunesid.pocket.training.train --out DIR
    python -m prunesid.pocket.training.train --model next --out DIR
    python -m prunesid.pocket.training.train --model gemini --out DIR
    python -m prunesid.pocket.training.train --model qwen --out DIR
    python -m prunesid.pocket.training.train --model video --out DIR
    python -m prunesid.pocket.training.train --out DIR --quick

Each resumes after a kill. With --quick a model learns nothing, in a minute. `make pocket` trains
and then measures the model card's numbers. All results follow from the seeds in the recipes, but
bit for bit only on the same machine with the same number of threads. Matrices are multiplied in
bf16 and summed in float32 if the CPU has instructions for that.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import torch

from prunesid.pocket.model import save

# Model -> the module whose `train` is its recipe.
RECIPES = {
    "gemini": "prunesid.pocket.gemini.training",
    "llava": "prunesid.pocket.training.llava",
    "next": "prunesid.pocket.next.training",
    "qwen": "prunesid.pocket.qwen.training",
    "video": "prunesid.pocket.video.training",
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", choices=RECIPES, default="llava")
    parser.add_argument("--out", type=Path, required=True, help="folder for the finished model")
    parser.add_argument("--checkpoints", type=Path, help="default: OUT/checkpoints")
    parser.add_argument("--quick", action="store_true", help="three tiny steps per phase")
    options = parser.parse_args(arguments)
    started = time.monotonic()
    torch.set_float32_matmul_precision("medium")
    checkpoints = options.checkpoints or options.out / "checkpoints"
    model, processor = import_module(RECIPES[options.model]).train(checkpoints, options.quick)
    save(model, processor, options.out)
    print(f"{options.out}: trained in {time.monotonic() - started:.0f} s (this call)")


if __name__ == "__main__":
    main()
