"""Muon in float32: updates are orthogonal, and steps equal torch's own up to bfloat16."""

from __future__ import annotations

import pytest
import torch

from prunesid.pocket.training.muon import Muon, orthogonal


@pytest.mark.parametrize("shape", [(6, 6), (6, 20), (20, 6)])
def test_updates_keep_the_singular_vectors_and_level_the_values(shape):
    torch.manual_seed(0)
    matrices = torch.randn(3, *shape)
    left, values, right = torch.linalg.svd(matrices, full_matrices=False)
    found = orthogonal(matrices)
    leveled = torch.einsum("bik,bij,bjk->bk", left, found, right.transpose(1, 2))
    kept = values > 0.05 * values[:, :1]
    assert bool(((leveled[kept] > 0.6) & (leveled[kept] < 1.3)).all())
    rest = found - left @ torch.diag_embed(leveled) @ right
    assert rest.norm() < 1e-4 * found.norm()


def test_steps_are_those_of_torch():
    torch.manual_seed(0)
    start = torch.randn(12, 8)
    mine, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    own = Muon([mine], lr=0.01)
    reference = torch.optim.Muon(
        [theirs], lr=0.01, weight_decay=0.02, adjust_lr_fn="match_rms_adamw"
    )
    for step in range(5):
        gradient = torch.randn(12, 8, generator=torch.Generator().manual_seed(step))
        mine.grad, theirs.grad = gradient.clone(), gradient.clone()
        own.step()
        reference.step()
    moved = (theirs - start).norm()
    assert (mine - theirs).norm() < 0.03 * moved
