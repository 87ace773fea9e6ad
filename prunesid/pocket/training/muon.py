"""The Muon optimizer in float32: orthogonalized momentum for weight matrices.

`torch.optim.Muon` iterates in bfloat16, which a CPU without bfloat16 instructions emulates. Its
step then takes three times as long as the forward and backward passes together.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor

# Quintic Newton-Schulz coefficients and step count of K. Jordan et al., "Muon" (2024).
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_STEPS = 5


def orthogonal(matrices: Tensor) -> Tensor:
    """(n, rows, columns) -> matrices with the same singular vectors and singular values near 1."""
    a, b, c = _COEFFICIENTS
    wide = matrices.shape[1] <= matrices.shape[2]
    x = matrices if wide else matrices.transpose(1, 2)
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp_min(1e-7)
    for _ in range(_STEPS):
        gram = x @ x.transpose(1, 2)
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if wide else x.transpose(1, 2)


class Muon(torch.optim.Optimizer):
    """Nesterov momentum with orthogonalized updates and decoupled weight decay.

    Updates are scaled to AdamW's usual size, so that AdamW's learning rates serve.
    """

    def __init__(
        self, matrices: Iterable[Tensor], lr: float, momentum: float = 0.95, decay: float = 0.02
    ):
        super().__init__(matrices, {"lr": lr, "momentum": momentum, "decay": decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            alike: dict[torch.Size, list[tuple[Tensor, Tensor]]] = defaultdict(list)
            for matrix in group["params"]:
                if matrix.grad is None:
                    continue
                state = self.state[matrix]
                if not state:
                    state["momentum"] = torch.zeros_like(matrix)
                state["momentum"].lerp_(matrix.grad, 1 - group["momentum"])
                update = matrix.grad.lerp(state["momentum"], group["momentum"])
                alike[matrix.shape].append((matrix, update))
            for shape, pairs in alike.items():
                updates = orthogonal(torch.stack([update for _, update in pairs]))
                scale = group["lr"] * 0.2 * max(shape) ** 0.5
                for (matrix, _), update in zip(pairs, updates, strict=True):
                    matrix.mul_(1 - group["lr"] * group["decay"]).sub_(update, alpha=scale)
