"""Hooks that read what a module computes inside a model, without changing the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from prunesid.core.delayed import torch


def split_heads(tensor: torch.Tensor, heads: int) -> torch.Tensor:
    """Split the channels into heads, (B, T, heads * d) -> (B, heads, T, d)."""
    split: torch.Tensor = tensor.unflatten(-1, (heads, -1))
    return split.transpose(1, 2)


@contextmanager
def outputs(modules: dict[str, torch.nn.Module]) -> Iterator[dict[str, torch.Tensor]]:
    """Collect what the named modules return while the block runs."""
    seen: dict[str, torch.Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(_module: torch.nn.Module, _inputs: Any, output: Any) -> None:
            seen[name] = output[0] if isinstance(output, tuple) else output

        return hook

    handles = [module.register_forward_hook(keep(name)) for name, module in modules.items()]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def keywords(module: torch.nn.Module) -> Iterator[dict[str, Any]]:
    """Collect the keyword arguments that a module is called with while the block runs."""
    seen: dict[str, Any] = {}

    def hook(_module: torch.nn.Module, _inputs: Any, given: dict[str, Any]) -> None:
        seen.update(given)

    handle = module.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield seen
    finally:
        handle.remove()
