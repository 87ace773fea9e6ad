"""The optimizers that both training stages share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from prunesid.pocket.training.muon import Muon


def optimizers(
    module: torch.nn.Module, matrices: Iterable[torch.nn.Parameter], rate: float
) -> list[torch.optim.Optimizer]:
    """Muon for the block matrices, and AdamW for all other trainable parameters."""
    block = [p for p in matrices if p.requires_grad]
    chosen = {id(p) for p in block}
    rest = [p for p in module.parameters() if p.requires_grad and id(p) not in chosen]
    return [
        Muon(block, lr=rate),
        torch.optim.AdamW(rest, lr=rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True),
    ]


def apply_rate(optimizers: Sequence[torch.optim.Optimizer], rate: float) -> None:
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate
