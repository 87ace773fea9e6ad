"""The high-resolution tower: a ConvNeXt trunk, all stages of which are read.

The layers are transformers' own. They equal timm's (LayerNorm eps 1e-6, exact GELU), the library in
which OpenCLIP's trunks are written; a trunk has neither a last norm nor a head.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.convnext.modeling_convnext import ConvNextEmbeddings, ConvNextStage


class ConvNextTrunk(nn.Module):
    """Pixels (B, 3, S, S) -> (B, sum of the stages' widths, S / 4, S / 4) with patch size 4."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.stem = ConvNextEmbeddings(config)
        widths = [config.hidden_sizes[0], *config.hidden_sizes]
        self.stages = nn.ModuleList(
            ConvNextStage(config, before, after, stride=2 if number else 1, depth=depth)
            for number, (before, after, depth) in enumerate(
                zip(widths, widths[1:], config.depths, strict=False)
            )
        )

    def forward(self, pixels: Tensor) -> Tensor:
        features = self.stem(pixels)
        maps = []
        for stage in self.stages:
            features = stage(features)
            maps.append(features)
        size = maps[0].shape[-2:]
        return torch.cat([maps[0], *(_resized(other, size) for other in maps[1:])], dim=1)


def _resized(features: Tensor, size: torch.Size) -> Tensor:
    """Bilinear, in float32 whatever the model's dtype."""
    larger = nn.functional.interpolate(
        features.float(), size=size, mode="bilinear", align_corners=False
    )
    return larger.to(features.dtype)
