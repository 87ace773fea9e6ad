"""The loop of a training stage: rates, updates, checkpoints and a log of what was measured."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from torch import nn
from tqdm import tqdm

from prunesid.pocket.training import optimization
from prunesid.pocket.training.checkpoint import load_checkpoint, save_checkpoint
from prunesid.pocket.training.schedule import Phase, steps_from

CHECKPOINT_STEPS, MEASURED_STEPS = 50, 200
Measured = dict[str, Any]


def run_stage(
    path: Path,
    module: nn.Module,
    matrices: Iterable[nn.Parameter],
    phases: Sequence[Phase],
    learn: Callable[[int, Phase], float],
    measure: Callable[[], Measured] = dict,
    clip: float = 1.0,
) -> None:
    """Train `module` in place, resuming from the checkpoint at `path`.

    A kill loses at most CHECKPOINT_STEPS steps.

    matrices  what Muon updates; AdamW does the rest of what wants gradients
    learn     adds the gradients of a step and returns its loss
    measure   what is appended to the log, which lies beside the checkpoint (.jsonl), every
              MEASURED_STEPS steps and at the end
    clip      largest norm of a step's gradients
    """
    used = optimization.optimizers(module, matrices, phases[0].rate)
    done = load_checkpoint(path, module, used) if path.exists() else 0
    total = sum(p.steps for p in phases)
    wanting = [p for p in module.parameters() if p.requires_grad]
    bar = tqdm(total=total, initial=done, desc=path.stem, unit="step", mininterval=20)
    for step, phase, rate in steps_from(phases, done):
        optimization.apply_rate(used, rate)
        loss = learn(step, phase)
        nn.utils.clip_grad_norm_(wanting, clip)
        for optimizer in used:
            optimizer.step()
            optimizer.zero_grad()
        bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
        bar.update()
        if (step + 1) % CHECKPOINT_STEPS == 0 or step + 1 == total:
            save_checkpoint(path, module, used, step + 1)
        if (step + 1) % MEASURED_STEPS == 0 or step + 1 == total:
            line = {"step": step + 1, "loss": round(loss, 3), **measure()}
            with open(path.with_suffix(".jsonl"), "a") as log:
                print(json.dumps(line), file=log)
    bar.close()
