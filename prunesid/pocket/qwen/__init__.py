"""Pocket-Qwen2-VL: an embedded model of images at their own size and shape, with M-RoPE."""

from prunesid.pocket import EMBEDDED

WEIGHTS = EMBEDDED["pocket-qwen"]
