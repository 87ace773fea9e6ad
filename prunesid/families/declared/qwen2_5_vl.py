"""Qwen2.5-VL."""

from __future__ import annotations

from prunesid.families.declared.geometry import Geometry, Stated
from prunesid.families.declared.qwen2_vl import declare_qwen, merged, tower_of


def read(config: Stated, frames: int | None) -> Geometry:
    """The tower's FFN is gated."""
    vision = config.part("vision_config")
    tower = tower_of(vision, vision.hidden_size, vision.intermediate_size, 3)
    return merged(config, frames, tower, vision.out_hidden_size)


declare_qwen("qwen2_5_vl", read)
