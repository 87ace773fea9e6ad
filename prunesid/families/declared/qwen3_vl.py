"""Qwen3-VL."""

from __future__ import annotations

from prunesid.families.declared.geometry import Geometry, Stated
from prunesid.families.declared.qwen2_vl import declare_qwen, merged, tower_of


def read(config: Stated, frames: int | None) -> Geometry:
    """Further mergers make what the first layers of the language model add to a token."""
    vision = config.part("vision_config")
    tower = tower_of(vision, vision.hidden_size, vision.intermediate_size, 2)
    further = len(vision.deepstack_visual_indexes)
    return merged(config, frames, tower, vision.out_hidden_size, further)


declare_qwen("qwen3_vl", read)
