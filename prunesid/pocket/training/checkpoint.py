"""Checkpoints: parameters and optimizer state in one safetensors file, written atomically."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file


def save_checkpoint(
    path: Path, module: torch.nn.Module, optimizers: Iterable[torch.optim.Optimizer], step: int
) -> None:
    """Write `module`, the state of `optimizers` and `step`; a kill leaves the old or new file."""
    tensors = {f"model.{k}": v for k, v in module.state_dict().items()}
    for number, optimizer in enumerate(optimizers):
        for index, state in optimizer.state_dict()["state"].items():
            for name, value in state.items():
                tensors[f"optimizer.{number}.{index}.{name}"] = torch.as_tensor(value)
    # Tied weights share storage, which safetensors refuses; a copy of each costs little here.
    tensors = {k: v.detach().clone().contiguous() for k, v in tensors.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".partial")
    save_file(tensors, temporary, metadata={"step": json.dumps(step)})
    os.replace(temporary, path)


def load_checkpoint(
    path: Path, module: torch.nn.Module, optimizers: Iterable[torch.optim.Optimizer]
) -> int:
    """Restore a checkpoint of `save_checkpoint` and return its step."""
    with safe_open(path, "pt") as file:
        step = json.loads(file.metadata()["step"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    module.load_state_dict(
        {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
    )
    for number, optimizer in enumerate(optimizers):
        prefix = f"optimizer.{number}."
        state: dict[int, dict[str, torch.Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith(prefix):
                index, name = key.removeprefix(prefix).split(".", 1)
                state.setdefault(int(index), {})[name] = value
        optimizer.load_state_dict(
            {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
        )
    return step
